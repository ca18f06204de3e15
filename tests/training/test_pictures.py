"""Pictures of energy, weights and training: what is drawn is what was measured, and nothing stays open."""

import keras
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.text import Text

import axtrain as ax
from axtrain.noise_models import picture_style as style
from axtrain.training.evaluation import Evaluation
from axtrain.training.search.results import SearchPoint, SearchResult
from axtrain.training.sensitivity.results import SensitivityMap
from axtrain.training.sweep.results import SweepPoint

DRUM = ax.Hardware(multiplier=ax.multipliers.get("drum4"))


@pytest.fixture
def on_drum(network, data):
    return ax.convert(network, DRUM, calibration=data[0])


def labels_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def drawn(figure, tmp_path):
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert pyplot.get_fignums() == []


def rises(layers=("hidden", "classes")):
    predicted = np.array([[0.02, 0.0], [0.3, 0.04]])
    return SensitivityMap(
        layers=layers, candidates=("coarse", "fine"), curvature={}, mean_part=predicted, spread_part=0 * predicted
    )


def test_energy_is_stacked_by_part(on_drum, tmp_path):
    estimate = ax.energy(on_drum)
    figure = estimate.plot()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["hidden", "classes"]
    assert labels_of(figure) == [part for part, spent in estimate.by_part.items() if spent]
    for container, part in zip(axes.containers, labels_of(figure), strict=True):
        widths = [bar.get_width() for bar in container]
        np.testing.assert_allclose(widths, [layer.by_part[part] / 1e3 for layer in estimate.layers])
    ends = [max(bar.get_x() + bar.get_width() for bar in row) for row in zip(*axes.containers, strict=True)]
    np.testing.assert_allclose(ends, [layer.total_pj / 1e3 for layer in estimate.layers])
    assert "[nJ]" in axes.get_xlabel()
    assert f"{estimate.total_pj / 1e3:.4g} nJ" in figure.get_suptitle()
    drawn(figure, tmp_path)


def test_energy_beside_sensitivity(on_drum, tmp_path):
    figure = ax.plots.energy_figure(ax.energy(on_drum), rises())
    _, beside = figure.axes
    coarse, fine = beside.get_lines()
    np.testing.assert_allclose(coarse.get_xydata(), [(0.02, 0), (0.3, 1)])
    np.testing.assert_allclose(fine.get_xydata(), [(0.04, 1)])  # a rise of 0 has no place on this axis
    assert (beside.get_xscale(), labels_of(figure)[-2:]) == ("log", ["coarse", "fine"])
    assert beside.get_xlabel().startswith("predicted rise")
    drawn(figure, tmp_path)
    with pytest.raises(ValueError, match=r"must be of these layers: hidden, classes\. Received: a, b"):
        ax.plots.energy_figure(ax.energy(on_drum), rises(("a", "b")))


def test_weights_before_and_after_on_the_errors(network, on_drum, tmp_path):
    layer = on_drum.get_layer("hidden")
    layer.kernel.assign(np.random.default_rng(1).normal(size=layer.kernel.shape))
    figure = ax.plots.weights_figure(network, on_drum, "hidden")
    axes, errors = figure.axes
    before, after = (patch.get_data() for patch in axes.patches)
    pull = ax.MultiplierError(DRUM.multiplier, 1.0, activations=np.array(layer.hardware_state.activation_histogram))
    codes, expected = pull.profile()
    for shown, kernel in ((before, network.get_layer("hidden").kernel), (after, layer.kernel)):
        counts = pull.counts(kernel)
        np.testing.assert_allclose(shown.values, 100 * counts / counts.sum())
        np.testing.assert_array_equal(shown.edges, np.append(codes, 128) - 0.5)
        assert f"{counts @ expected / counts.sum():.3g}" in figure.get_suptitle()
    assert errors.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(expected.max(), rel=1e-5)
    assert labels_of(figure) == ["before training", "after training", "error of drum4"]
    drawn(figure, tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_have_no_picture(value, network, on_drum):
    layer = on_drum.get_layer("hidden")
    held = np.array(layer.kernel)
    layer.kernel.assign(np.where(np.arange(held.size).reshape(held.shape) == 1, value, held))
    with pytest.raises(ValueError, match="must be finite.*Received: 1 of"):
        ax.plots.weights_figure(network, on_drum, "hidden")
    layer.kernel.assign(held)


def test_weights_alone_are_those_of_the_largest_layer(on_drum, tmp_path):
    figure = ax.plots.weights_figure(None, on_drum)
    assert figure.axes[0].get_xlabel() == "weight code of hidden"
    assert labels_of(figure) == ["weights", "error of drum4"]
    drawn(figure, tmp_path)


def test_weights_of_no_such_layer(network, on_drum):
    with pytest.raises(ValueError, match=r"`layer` must be one of hidden, classes\. Received: layer='none'"):
        ax.plots.weights_figure(network, on_drum, "none")
    with pytest.raises(ValueError, match="No layer with weights runs on hardware"):
        ax.plots.weights_figure(None, network)
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, name="hidden")])
    with pytest.raises(ValueError, match=r"`before` must hold a layer 'hidden'.*kernels of shapes \[\(6, 3\)\]"):
        ax.plots.weights_figure(other, on_drum, "hidden")
    with pytest.raises(ValueError, match=r"Received: no such layer"):
        ax.plots.weights_figure(other, on_drum, "classes")


def test_training_with_the_noise_that_was_there(noisy, data, tmp_path):
    noisy.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    schedule = ax.callbacks.NoiseSchedule(2)
    history = noisy.fit(*data, epochs=3, verbose=0, validation_data=data, callbacks=[schedule])
    assert history.history["noise_strength"] == [0.5, 1.0, 1.0]
    figure = ax.plots.training_figure(history, width=5.0)
    loss, accuracy, first, second = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy [%]", *["noise strength"] * 2]
    for axes, name, scale in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
        for line, key in zip(axes.get_lines(), (name, f"val_{name}"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_allclose(line.get_ydata(), scale * np.array(history.history[key]))
    for axes in (first, second):
        np.testing.assert_array_equal(axes.patches[0].get_data().values, [0.5, 1.0, 1.0])
    assert labels_of(figure) == ["training", "validation", "noise strength"]
    drawn(figure, tmp_path)


@pytest.mark.parametrize(
    ("history", "epochs"),
    [({}, None), ({"noise_strength": [1.0]}, None), ({"loss": [1.0, 2.0], "mae": [1.0]}, None), ({"loss": [1.0]}, [])],
)
def test_no_training_curves(history, epochs):
    with pytest.raises(ValueError, match=r"`history` must hold curves .*Received: "):
        ax.plots.training_figure(history, epochs=epochs)


def test_the_figure_of_each_chip_of_several_networks(tmp_path):
    found = {str(index): Evaluation(np.array([0.9, 0.8 + index / 100]), 0, 10) for index in range(7)}
    figure = ax.plots.evaluations_figure(found, clean=0.99, title="a title " * 20)
    lines = figure.axes[0].get_lines()
    np.testing.assert_allclose(lines[6].get_ydata(), [86, 90])
    assert lines[6].get_color() == style.AFTER and len(lines) == 8
    assert labels_of(figure)[-2:] == ["6: mean 88.0 %, worst 86.0 %", "conventional in float: 99.0 %"]
    drawn(figure, tmp_path)


@pytest.mark.parametrize("width", [5.0, 10.0])
def test_no_words_lie_on_one_another(width):
    """Titles, labels and legends of the fullest picture, wide and narrow."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = ax.plots.multiplier_figure(ax.multipliers.get("drum4"), width=width)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    parts = [figure._suptitle, *figure.legends]
    for axes in figure.axes:
        parts += [axes.title, axes.xaxis.label, axes.yaxis.label]
    boxes = [part.get_window_extent(canvas.get_renderer()) for part in parts]
    boxes = [box for box in boxes if box.width and box.height]
    size = figure.bbox
    for index, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= size.width + 1 and box.y1 <= size.height + 1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


ODD = r"_a$b$c $\frac$ x_{1}"  # mathematics to matplotlib, of which the second it cannot read


def pictures_with_odd_names():
    """Every public picture, with that name wherever a person gives one."""
    circuit = ax.Multiplier(ax.multipliers.get("drum4").table, name=ODD, bits=8, signed=False)
    hardware = ax.Hardware(multiplier=circuit, name=ODD)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name=ODD)])
    noisy = ax.convert(model, hardware, calibration=np.ones((4, 3), "float32"))
    odd = SensitivityMap(
        layers=(ODD, "b"),
        candidates=(ODD, "c"),
        curvature={},
        mean_part=np.array([[0.02, 1e-5], [0.3, 0.04]]),
        spread_part=np.zeros((2, 2)),
        measured=np.array([[0.02, 1e-4], [0.3, 0.04]]),
        measured_error=np.full((2, 2), 1e-5),
        loss=ODD,
    )
    judged = Evaluation(np.array([0.9, 0.8]), 0, 10, ODD)
    points = [SweepPoint(evaluation=judged, voltage=None, rate=rate, energy_pj=1e3, saving=0.5) for rate in (0.0, 1e-3)]
    found = SearchPoint(assignment={"b": ODD}, energy_pj=1e3, saving=0.5, predicted=0.1, evaluation=judged)
    yield "chips_figure", ax.plots.chips_figure(0.9, judged, judged, {ODD: 1.0, "b": 2.0}, title=ODD)
    yield "energy_figure", ax.plots.energy_figure(ax.energy(noisy, reference=hardware), odd)
    yield "evaluations_figure", ax.plots.evaluations_figure({ODD: judged}, title=ODD)
    yield "multiplier_figure", circuit.plot()
    yield "search_figure", SearchResult(points=(found,), exact=found, best=found, budget=0.1).plot()
    yield "sensitivity_figure", odd.plot()
    yield "sweep_figure", ax.plots.sweep_figure(points, title=ODD)
    yield "training_figure", ax.plots.training_figure({"loss": [1.0], ODD: [0.5]}, title=ODD)
    yield "weights_figure", ax.plots.weights_figure(None, noisy)
    yield (
        "curve",
        ax.fit_curve(
            ax.Readings(voltages=(0.4, 0.5), failures=(2000, 100), cells=10_000, source=ODD), method="isotonic"
        ).plot(),
    )
    yield "penalty", ax.MultiplierError(circuit, 1.0).plot()


def test_names_are_drawn_as_they_stand(tmp_path):
    """Nothing in them is read as mathematics, no legend leaves them out; powers of ten stay powers."""
    figures = dict(pictures_with_odd_names())
    assert {name for name in ax.plots.__all__ if name.endswith("_figure")} <= set(figures)
    for name, figure in figures.items():
        figure.draw_without_rendering()
        texts = [text for text in figure.findobj(Text) if ODD.split()[0] in text.get_text()]
        assert texts and not any(text.get_parse_math() for text in texts), name
    for suffix in ("png", "svg"):
        figures["energy_figure"].savefig(tmp_path / f"energy.{suffix}", dpi=20)
    beside = figures["energy_figure"].axes[1]
    assert beside.get_xscale() == "log" and all(label.get_parse_math() for label in beside.get_xticklabels())
    assert labels_of(figures["energy_figure"])[-2:] == [f" {ODD}", "c"]
    assert labels_of(figures["evaluations_figure"]) == [f" {ODD}: mean 0.85, worst 0.8"]
