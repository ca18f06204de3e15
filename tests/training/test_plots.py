import numpy as np
import pytest
from matplotlib import pyplot

from axtrain.training.evaluation import Evaluation
from axtrain.training.plots import chips_figure, sweep_csv, sweep_figure, sweep_table
from axtrain.training.sweep.sweeping import SweepPoint


@pytest.fixture
def figure():
    before = Evaluation(np.array([0.7, 0.5, 0.6]), 0, 100)
    after = Evaluation(np.array([0.9, 0.95, 0.85]), 0, 100)
    return chips_figure(0.97, before, after, {"exact": 161.2, "described": 73.4}, title="Digits")


def test_every_chip_is_drawn_worst_first(figure):
    chips = figure.axes[0]
    before, after, clean = chips.get_lines()
    np.testing.assert_allclose(before.get_ydata(), [50, 60, 70])
    np.testing.assert_allclose(after.get_ydata(), [85, 90, 95])
    np.testing.assert_array_equal(before.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(after.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(clean.get_ydata(), [97, 97])


def test_the_legend_holds_the_figures(figure):
    legend = figure.axes[0].get_legend() or figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [
        "conventional: mean 60.0 %, worst 50.0 %",
        "trained for it: mean 90.0 %, worst 85.0 %",
        "conventional in float: 97.0 %",
    ]


def test_bars_are_the_energies(figure):
    energy = figure.axes[1]
    assert [bar.get_height() for bar in energy.patches] == [161.2, 73.4]
    assert [label.get_text() for label in energy.get_xticklabels()] == ["exact", "described"]
    assert {text.get_text() for text in energy.texts} == {"161", "73"}
    assert "nJ" in energy.get_ylabel()


def test_it_is_titled_and_nothing_stays_open(figure):
    assert figure.get_suptitle() == "Digits"
    assert pyplot.get_fignums() == []


def test_it_draws(figure, tmp_path):
    figure.savefig(tmp_path / "chips.png")
    assert (tmp_path / "chips.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def swept(metric="accuracy", by_rate=False, energy=True):
    chips = ([0.95, 0.97, 0.96], [0.9, 0.94, 0.95], [0.3, 0.5, 0.9])
    at = ((0.7, 0.0, 4e3), (0.56, 6e-4, 3e3), (0.44, 0.08, 2e3))
    return [
        SweepPoint(
            evaluation=Evaluation(np.array(accuracies), 0, 100, metric),
            voltage=None if by_rate else voltage,
            rate=rate,
            energy_pj=spent if energy else None,
            saving=0.5 if energy else None,
        )
        for accuracies, (voltage, rate, spent) in zip(chips, at, strict=True)
    ]


def labels_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_sweep_mean_worst_and_band():
    axes = sweep_figure(swept(), title="Digits").axes[0]
    mean, worst = axes.get_lines()
    np.testing.assert_allclose(mean.get_xdata(), [0.7, 0.56, 0.44])
    np.testing.assert_allclose(mean.get_ydata(), [96, 93, 170 / 3])
    np.testing.assert_allclose(worst.get_ydata(), [95, 90, 30])
    assert worst.get_linewidth() < mean.get_linewidth()
    corners = axes.collections[0].get_paths()[0].vertices
    for voltage, accuracies in ((0.7, [95, 97, 96]), (0.56, [90, 94, 95]), (0.44, [30, 50, 90])):
        spread = np.std(accuracies, ddof=1)
        expected = (
            max(np.mean(accuracies) - spread, min(accuracies)),
            min(np.mean(accuracies) + spread, max(accuracies)),
        )
        heights = corners[np.isclose(corners[:, 0], voltage), 1]
        np.testing.assert_allclose((heights.min(), heights.max()), expected)


def test_sweep_axes_and_energy():
    figure = sweep_figure(swept(), title="Digits")
    axes, energy = figure.axes
    assert (axes.get_ylabel(), energy.get_xlabel()) == ("test accuracy [%]", "supply voltage [V]")
    assert energy.get_ylabel() == "energy per\ninference [nJ]"
    np.testing.assert_allclose(energy.get_lines()[0].get_ydata(), [4, 3, 2])
    assert figure.get_suptitle() == "Digits"
    assert labels_of(figure) == ["one standard deviation of 3 chips", "mean over chips", "worst chip", "energy"]
    assert pyplot.get_fignums() == []


def test_sweep_marks_the_operating_point():
    points = swept()
    figure = sweep_figure(points, required=0.9, chosen=points[1])
    star = figure.axes[0].get_lines()[-1]
    assert (star.get_marker(), list(star.get_xdata())) == ("*", [0.56])
    np.testing.assert_allclose(star.get_ydata(), [93])
    assert "operating point: 0.56 V, mean 93 %, worst 90 %, 3 nJ" in labels_of(figure)
    assert "required of the mean: 90 %" in labels_of(figure)
    assert "required of the mean: 99 %, not met" in labels_of(sweep_figure(points, required=0.99))


def test_sweep_of_rates_and_of_another_metric(tmp_path):
    points = swept(metric="recall", by_rate=True, energy=False)
    figure = sweep_figure(points, required=0.9, chosen=points[1])
    (axes,) = figure.axes  # no energy, no second axis
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("bit error rate", "recall", "symlog")
    np.testing.assert_allclose(axes.get_lines()[1].get_ydata(), [0.95, 0.9, 0.3])
    assert "operating point: rate 0.0006, mean 0.93, worst 0.9" in labels_of(figure)
    figure.savefig(tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_sweep_table_and_csv_leave_out_what_is_not_known():
    points = swept(by_rate=True, energy=False)
    row = sweep_table(points).splitlines()[3].split()
    assert (row[0], row[1], row[-2:]) == ("-", "6.0e-04", ["-", "-"])
    header, _, second, _ = sweep_csv(points).splitlines()
    assert header.startswith("voltage,rate,mean,std,worst,interval_low,interval_high,energy_pj,saving,chip_1")
    assert second.startswith(",0.0006,")
    assert second.endswith(",,,0.9,0.94,0.95")
