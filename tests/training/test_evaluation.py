import keras
import numpy as np
import pytest
from scipy import stats

import axtrain as ax
from axtrain.controls import hardware_layers
from axtrain.running_state import recurrent_states
from axtrain.step_passes import Passes
from axtrain.training.data_files import gives_probabilities
from axtrain.training.evaluation import Evaluation, accuracy, chip_numbers
from axtrain.training.kept_figures import KeptFigures, fingerprint

pytestmark = pytest.mark.eager


def quiet(model, x, y, **kwargs):
    return ax.evaluate(model, x, y, verbose=False, **kwargs)


def state(model):
    return [
        [keras.ops.convert_to_numpy(seed.state).copy() for seed in (s.chip_seed, s.stream)]
        for s in (layer.hardware_state for layer in hardware_layers(model))
    ]


def test_every_chip_is_what_predict_says_on_that_chip(noisy, data):
    x, y = data
    measured = quiet(noisy, x, y, chips=6, seed=11)
    by_hand = []
    for number in np.random.default_rng(11).integers(0, 1 << 31, 6):
        ax.set_chip(noisy, int(number))
        by_hand.append(np.mean(noisy.predict(x, verbose=0).argmax(-1) == y))
    np.testing.assert_array_equal(measured.accuracies, by_hand)
    assert measured.accuracies.dtype == np.float64
    assert (measured.seed, measured.samples, measured.metric) == (11, 150, "accuracy")


def test_figures_are_those_of_numpy_and_scipy():
    accuracies = np.array([0.91, 0.87, 0.93, 0.88, 0.905])
    measured = Evaluation(accuracies, 0, 100)
    assert measured.mean == pytest.approx(np.mean(accuracies), abs=1e-15)
    assert measured.std == pytest.approx(np.sqrt(np.sum((accuracies - accuracies.mean()) ** 2) / 4), abs=1e-15)
    assert measured.worst == 0.87
    expected = stats.t.interval(0.95, 4, loc=accuracies.mean(), scale=stats.sem(accuracies))
    assert measured.interval == pytest.approx(expected, abs=1e-14)


def test_one_chip_has_no_spread():
    measured = Evaluation(np.array([0.5]), 0, 10)
    assert (measured.std, measured.interval, measured.worst) == (0.0, (0.5, 0.5), 0.5)


def test_dictionary_is_json_and_text_names_the_figures():
    import json

    measured = Evaluation(np.array([0.5, 0.75]), 3, 8, "recall")
    described = json.loads(json.dumps(measured.to_dict()))
    assert described == {
        "accuracies": [0.5, 0.75],
        "seed": 3,
        "samples": 8,
        "metric": "recall",
        "deterministic": False,
        "in_float": False,
        "mean": 0.625,
        "std": measured.std,
        "worst": 0.5,
        "interval": list(measured.interval),
    }
    assert str(measured).startswith("recall 0.6250 +- 0.1768 over 2 chips")
    assert str(measured).endswith("worst 0.5000")


@pytest.mark.parametrize("fault", ["persistent", "random", "stuck"])
@pytest.mark.cases("random")
def test_same_seed_same_chips_another_seed_others(make_noisy, data, fault):
    model = make_noisy(ax.memories.BitErrors(rate=0.05, fault=fault))
    first = quiet(model, *data, chips=5, seed=1)
    again = quiet(model, *data, chips=5, seed=1)
    other = quiet(model, *data, chips=5, seed=2)
    np.testing.assert_array_equal(first.accuracies, again.accuracies)
    assert len(set(first.accuracies)) > 1
    assert list(first.accuracies) != list(other.accuracies)


def test_gaussian_fidelity_is_random_without_a_memory(network, data):
    hardware = ax.Hardware(multiplier=ax.multipliers.get("drum3"))
    model = ax.convert(network, hardware, calibration=data[0], fidelity="gaussian")
    first, again = (quiet(model, *data, chips=6, seed=1) for _ in range(2))
    assert len(set(first.accuracies)) > 1
    np.testing.assert_array_equal(first.accuracies, again.accuracies)


@pytest.mark.parametrize("fault", ["persistent", "random"])
def test_own_chip_and_stream_are_put_back(make_noisy, data, fault):
    model = make_noisy(ax.memories.BitErrors(rate=0.05, fault=fault))
    ax.set_chip(model, 7)
    model.predict(data[0], verbose=0)  # random faults: the stream moves on
    before = state(model)
    quiet(model, *data, chips=3)
    for (chip, stream), (chip_after, stream_after) in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(chip, chip_after)
        np.testing.assert_array_equal(stream, stream_after)


def test_own_chip_is_put_back_after_a_metric_that_raises(noisy, data):
    ax.set_chip(noisy, 7)
    before = state(noisy)

    def broken(y_true, y_pred):
        raise ArithmeticError("no figure")

    with pytest.raises(ArithmeticError, match="no figure"):
        quiet(noisy, *data, chips=3, metric=broken)
    np.testing.assert_array_equal(before, state(noisy))


@pytest.mark.parametrize("memory", [None, ax.memories.BitErrors(rate=0.0)])
def test_without_randomness_one_measurement_stands_for_all(make_noisy, data, memory):
    measured = []

    def counted(y_true, y_pred):
        measured.append(accuracy(y_true, y_pred))
        return measured[-1]

    result = quiet(make_noisy(memory), *data, chips=4, metric=counted)
    assert len(measured) == 1
    assert list(result.accuracies) == measured * 4
    assert result.std == 0
    assert result.interval == (result.mean, result.mean)
    said = f"counted {result.mean:.4f}, measured once: no chip differs from another"
    assert str(result) == str(Evaluation.from_dict(result.to_dict())) == said
    assert len(result.to_dict()["accuracies"]) == 4


def test_what_varies_is_said_as_chips(noisy, data):
    result = quiet(noisy, *data, chips=2)
    assert not result.deterministic
    assert "over 2 chips" in str(result)
    described = result.to_dict()
    del described["deterministic"]  # as older versions wrote it
    assert str(Evaluation.from_dict(described)) == str(result)


def test_plain_model(network, data):
    x, y = data
    wrong = np.where(np.arange(150) < 30, (y + 1) % 4, y)
    result = quiet(network, x, wrong, chips=3)
    assert list(result.accuracies) == [0.8, 0.8, 0.8]
    said = "accuracy 0.8000, measured in float: no layer runs on hardware"
    assert str(result) == str(Evaluation.from_dict(result.to_dict())) == said


def test_a_network_switched_to_float_says_so(noisy, data):
    assert not quiet(noisy, *data, chips=1).in_float
    ax.set_fidelity(noisy, "float")
    assert quiet(noisy, *data, chips=2).in_float


def test_clean_weights_are_left_alone(noisy, data):
    before = [weight.copy() for weight in noisy.get_weights()]
    quiet(noisy, *data, chips=3)
    for old, new in zip(before, noisy.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_kinds_of_labels_agree(noisy, data):
    x, y = data
    expected = quiet(noisy, x, y, chips=3).accuracies
    for labels in (y.astype("uint8"), y[:, None], y.astype("float64"), np.eye(4)[y], y.tolist()):
        np.testing.assert_array_equal(quiet(noisy, x, labels, chips=3).accuracies, expected)


def test_accuracy_by_hand():
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert accuracy([1, 0, 0, 0], scores) == 0.75
    assert accuracy([[1], [0], [0], [0]], scores) == 0.75
    assert accuracy([[0, 1], [1, 0], [1, 0], [1, 0]], scores) == 0.75
    binary = np.array([[0.9], [0.2], [0.5], [0.51]])
    assert accuracy([1, 0, 1, 1], binary) == 0.75  # 0.5 is not above 0.5
    assert accuracy([[1], [0], [1], [1]], binary) == 0.75
    assert accuracy([True, False, True, True], binary) == 0.75


@pytest.mark.parametrize(
    ("labels", "outputs", "match"),
    [
        ([1, 0], [[2.0], [-1.0]], r"single output as a probability.*\(p\[:, 0\] > 0\).*outputs from -1 to 2"),
        ([1, 0], [2.0, -1.0], "single output as a probability"),
        ([1, -1], [[0.9], [0.2]], r"class numbers from 0 to 1, or one-hot rows.*metric=.*from -1 to 1"),
        ([1, 2], [[0.9], [0.2]], "class numbers from 0 to 1"),
        ([0.3, 0.7], [[0.9], [0.2]], "class numbers from 0 to 1"),
        ([0, 3], np.eye(3)[:2], "class numbers from 0 to 2"),
        ([0.0, np.nan], np.eye(3)[:2], "class numbers from 0 to 2"),
        (["cat", "dog"], np.eye(3)[:2], r"class numbers.*dtype <U3"),
        ([0, 1, 2, 0], np.eye(4).reshape(2, 2, 4), "class numbers"),
        ([[1, 1, 0], [0, 0, 1]], np.eye(3)[:2], r"one-hot rows, of one 1.*\(\(p > 0\.5\) == y\)"),
        ([[0, 0, 0], [0, 0, 1]], np.eye(3)[:2], "one-hot rows, of one 1"),
        (np.full((2, 3), 1 / 3), np.eye(3)[:2], "one-hot rows, of one 1"),
        ([1, 0], [[np.nan, 0.2], [0.1, 0.9]], r"outputs are not finite.*1 of 4 outputs"),
        ([1, 0], [[np.inf], [0.9]], r"outputs are not finite.*1 of 2 outputs"),
        ([1, 0], np.array("a"), "one array of outputs"),
    ],
)
def test_what_accuracy_cannot_judge(labels, outputs, match):
    with pytest.raises(ValueError, match=match) as caught:
        accuracy(labels, np.asarray(outputs))
    assert "Received: " in str(caught.value)


@pytest.mark.parametrize("kind", [list, tuple, lambda outputs: dict(enumerate(outputs))])
def test_several_outputs_have_no_one_accuracy(kind):
    with pytest.raises(ValueError, match=r"one array of outputs; for anything else pass metric=.*Received: 2 arrays"):
        accuracy([0, 1], kind([np.eye(2), np.eye(2)]))
    assert accuracy([0, 1], np.eye(2).tolist()) == 1


def test_probabilities_of_one_output_may_come_flat_and_rounded():
    assert accuracy([1, 0, 1], np.float32([0.9, 0.2, 1 + 1e-7])) == 1.0


def test_accuracy_of_every_position_of_a_sequence():
    scores = np.eye(3)[[[0, 1], [2, 2]]]  # (2 samples, 2 positions, 3 classes)
    assert accuracy([[0, 1], [2, 0]], scores) == 0.75


def test_binary_model_on_chips():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, activation="sigmoid", name="only")])
    x = np.random.default_rng(1).normal(size=(200, 5)).astype("float32")
    y = (model.predict(x, verbose=0) > 0.5).astype(int)
    hardware = ax.Hardware(weight_memory=ax.memories.BitErrors(rate=0.2, fault="persistent"))
    noisy = ax.convert(model, hardware, calibration=x)
    assert quiet(model, x, y, chips=1).mean == 1.0
    flat, column = (quiet(noisy, x, labels, chips=5).accuracies for labels in (y[:, 0], y))
    np.testing.assert_array_equal(flat, column)
    assert 0.05 < flat.min() < flat.max() <= 1


def test_custom_metric_gets_labels_and_predictions(noisy, data):
    x, y = data

    def log_loss(y_true, y_pred):
        assert y_true is y
        assert y_pred.shape == (150, 4)
        return -np.log(y_pred[np.arange(150), y_true] + 1e-9).mean()

    result = quiet(noisy, x, y, chips=3, metric=log_loss)
    assert result.metric == "log_loss"
    ax.set_chip(noisy, int(np.random.default_rng(0).integers(0, 1 << 31, 3)[0]))
    assert result.accuracies[0] == pytest.approx(log_loss(y, noisy.predict(x, verbose=0)), rel=1e-6)


def nothing(y_true, y_pred):
    """A metric without a figure."""
    return float("nan")


def everywhere(model, x, y, metric):
    """Everything that measures, as functions of nothing."""
    circuits = [ax.Hardware(weight_memory=ax.memories.BitErrors(rate=0.2, fault="persistent"))]
    options = {"metric": metric, "chips": 2, "verbose": False}
    return {
        "evaluate": lambda: ax.evaluate(model, x, y, **options),
        "sweep": lambda: ax.sweep(model, x, y, rates=(0.1,), **options),
        "search": lambda: ax.search(model, x, y, candidates=circuits, measure=False, confirm=2, **options),
        "sensitivity": lambda: ax.sensitivity(model, x, y, candidates=circuits, measure=True, **options),
    }


@pytest.mark.parametrize("name", ["evaluate", "sweep", "search", "sensitivity"])
def test_a_figure_that_is_not_finite_is_refused_wherever_it_is_measured(noisy, data, name):
    chip = chip_numbers(0, 1)[0]
    with pytest.raises(ValueError, match=rf"must give a finite number.*Received: nan from nothing on chip {chip}"):
        everywhere(noisy, *data, nothing)[name]()
    noisy.layers[-1].bias.assign([np.nan] * 4)
    with pytest.raises(ValueError, match=r"not finite|finite number"):
        everywhere(noisy, *data, accuracy)[name]()


def test_outputs_that_are_nan_name_their_chip(noisy, data):
    noisy.layers[-1].bias.assign([np.nan] * 4)
    chip = chip_numbers(0, 1)[0]
    with pytest.raises(ValueError, match=rf"600 of 600 outputs NaN or infinite, on chip {chip}"):
        quiet(noisy, *data)


def test_a_logit_is_refused_though_its_values_could_be_probabilities(data):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    nested = keras.Sequential([keras.Input((6,)), model])
    labels = np.arange(150) % 2
    for one in (model, nested, ax.convert(model, ax.Hardware(), calibration=data[0])):
        with pytest.raises(ValueError, match="whose one output has no activation"):
            quiet(one, data[0], labels)
    assert quiet(model, data[0], labels, metric=lambda y, p: ((p[:, 0] > 0) == y).mean()).mean == 0.5


def test_an_evaluation_that_was_not_finite_is_not_read():
    described = {**Evaluation(np.array([0.5, 0.5]), 0, 10).to_dict(), "accuracies": [0.5, float("nan")]}
    with pytest.raises(ValueError, match=r"must be finite\. Received: \[0\.5, nan\]"):
        Evaluation.from_dict(described)


def test_what_training_meets_is_left_alone(noisy, data):
    ax.set_chip(noisy, 7, training=True)
    quiet(noisy, *data, chips=2)
    assert all(layer.hardware_state.trains_on_chip for layer in hardware_layers(noisy))


@pytest.fixture(scope="module")
def stateful():
    """A stateful recurrent network on hardware, and data."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.LSTM(3, stateful=True), keras.layers.Dense(2, activation="softmax", name="out")]
    model = keras.Sequential([keras.Input(batch_shape=(8, 3, 2)), *layers])
    x = np.random.default_rng(0).normal(size=(16, 3, 2)).astype("float32")
    memory = ax.memories.BitErrors(rate=0.05, fault="persistent")
    return ax.convert(model, ax.Hardware(weight_memory=memory), calibration=x[:8]), x


def carried(model):
    return [keras.ops.convert_to_numpy(state) for state in recurrent_states(model)]


def mean_output(y_true, y_pred):
    """Of the first class."""
    return float(y_pred[:, 0].mean())


def test_conversion_leaves_no_recurrent_state(stateful):
    assert len(carried(stateful[0])) == 2
    assert not np.any(carried(stateful[0]))


def test_recurrent_states_of_wrapped_layers_count_once():
    wrapped = keras.layers.Bidirectional(keras.layers.GRU(2, stateful=True))
    stacked = keras.layers.RNN([keras.layers.LSTMCell(2), keras.layers.GRUCell(2)], stateful=True)
    inner = keras.Sequential([keras.Input(batch_shape=(4, 3, 2)), wrapped])
    assert len(recurrent_states(keras.Sequential([inner]))) == 2
    assert len(recurrent_states(keras.Sequential([keras.Input(batch_shape=(4, 3, 2)), stacked]))) == 3
    assert recurrent_states(keras.Sequential([keras.Input((3, 2)), keras.layers.GRU(2)])) == []


def test_every_chip_begins_with_the_same_recurrent_state(stateful):
    model, x = stateful
    options = {"metric": mean_output, "batch_size": 8}
    clean = quiet(model, x, np.zeros(16), chips=3, **options).accuracies
    assert not np.any(carried(model))
    np.testing.assert_array_equal(quiet(model, x, np.zeros(16), chips=3, **options).accuracies, clean)
    swept = ax.sweep(model, x, np.zeros(16), rates=(0.05,), chips=3, verbose=False, **options)
    np.testing.assert_array_equal(swept.points[0].evaluation.accuracies, clean)
    ax.set_chip(model, chip_numbers(0, 3)[2])
    assert model.predict(x, batch_size=8, verbose=0)[:, 0].mean() == pytest.approx(clean[2], abs=1e-6)
    moved = carried(model)
    assert np.all([np.any(state) for state in moved])
    quiet(model, x, np.zeros(16), chips=2, **options)
    np.testing.assert_array_equal(carried(model), moved)
    for state in recurrent_states(model):
        state.assign(state * 0)


def test_searches_and_sensitivities_begin_with_the_same_recurrent_state(stateful):
    model, x = stateful
    labels = np.arange(16) % 2
    plain, exact = ax.strip(model), ax.Hardware()
    options = {"metric": mean_output, "batch_size": 8, "chips": 1, "candidates": [exact], "calibration": x[:8]}
    found = ax.sensitivity(plain, x, labels, verbose=False, probes=2, **options)
    assert not np.any(found.measured)  # the candidate is the reference
    again = ax.sensitivity(plain, x, labels, verbose=False, probes=2, measure=False, **options)
    np.testing.assert_array_equal(again.curvature["out"], found.curvature["out"])
    result = ax.search(plain, x, labels, sensitivity=found, confirm=2, verbose=False, **options)
    expected = quiet(ax.convert(plain, exact, calibration=x[:8]), x, labels, metric=mean_output, batch_size=8)
    assert [one.evaluation.mean for one in (result.exact, *result.confirmed)] == [expected.mean] * 2
    assert gives_probabilities(plain, x[:8])
    assert not np.any(carried(plain))


def test_a_second_pass_of_a_step_begins_with_the_same_recurrent_state(stateful):
    model = ax.strip(stateful[0])
    model.compile("sgd", "mse")
    passes = Passes(model, stateful[1][:8], np.zeros((8, 2), "float32"), None, 1.0)
    whole = passes.whole()[0]
    np.testing.assert_array_equal(passes.again()[0], whole)


def test_a_metric_object_is_named_by_its_class(network, data):
    class Half:
        def __call__(self, y_true, y_pred):
            return 0.5

    assert quiet(network, *data, metric=Half()).metric == "Half"


def test_the_batch_size_changes_no_persistent_chip(noisy, data):
    small, large = (quiet(noisy, *data, chips=3, batch_size=size).accuracies for size in (16, 150))
    np.testing.assert_array_equal(small, large)


def test_several_inputs():
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    joined = keras.layers.Concatenate()([left, right])
    model = keras.Model([left, right], keras.layers.Dense(3, name="out")(joined))
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(20, 3)).astype("float32"), rng.normal(size=(20, 2)).astype("float32")]
    y = model.predict(x, verbose=0).argmax(-1)
    result = quiet(model, x, y, chips=2)
    assert (result.mean, result.samples) == (1.0, 20)
    assert quiet(model, {"left": x[0], "right": x[1]}, y).mean == 1.0


def test_more_chips_begin_with_the_same_ones():
    assert chip_numbers(7, 50)[:20] == chip_numbers(7, 20)
    assert all(type(number) is int for number in chip_numbers(7, 2))


def test_dictionary_gives_the_evaluation_back():
    measured = Evaluation(np.array([0.5, 0.75]), 3, 8, "recall")
    again = Evaluation.from_dict(measured.to_dict())
    assert again.to_dict() == measured.to_dict()
    assert again.accuracies.dtype == np.float64


def test_fingerprint_is_of_network_data_and_metric(network, data):
    first = fingerprint(network, *data, accuracy)
    assert first == fingerprint(network, *data, accuracy)
    assert first["metric"] == "axtrain.training.evaluation.accuracy"
    clone = keras.models.clone_model(network)
    other = fingerprint(clone, data[0][:9], data[1], np.mean)
    assert [name for name in first if first[name] != other[name]] == ["network", "data", "metric"]
    clone.set_weights(network.get_weights())
    assert fingerprint(clone, *data, accuracy) == first


def test_figures_are_kept_whole(tmp_path):
    kept = KeptFigures(tmp_path / "new", ["a", "b"], {"seed": 0})
    kept.add(1, 12, 0.1)
    kept.add(1, 5, 1 / 3)
    again = KeptFigures(tmp_path / "new", ["b", "c"], {"seed": 0})
    assert again.found == [{12: 0.1, 5: 1 / 3}, {}]
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["b.json", "settings.json"]
    with pytest.raises(ValueError, match=r"another model, data or setting.*Received: seed=1, there 0"):
        KeptFigures(tmp_path / "new", ["b"], {"seed": 1})
    (tmp_path / "new" / "b.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"b\.json cannot be read as a file of kept figures.*Received: JSON of a list"):
        KeptFigures(tmp_path / "new", ["b"], {"seed": 0})


def test_data_that_are_none(network, data):
    with pytest.raises(ValueError, match="at least one sample"):
        quiet(network, data[0][:0], data[1][:0])
    with pytest.raises(ValueError, match="Give samples and labels"):
        quiet(network, data[0], None)


@pytest.mark.parametrize("chips", [0, -1, 2.5, "3", None])
def test_chips_that_are_none(network, data, chips):
    with pytest.raises(ValueError, match=r"`chips` must be an int >= 1\. Received"):
        quiet(network, *data, chips=chips)


def test_lengths_that_differ(network, data):
    with pytest.raises(ValueError, match=r"same length\. Received: 150 and 149"):
        quiet(network, data[0], data[1][:149])


def test_the_interval_covers_the_true_mean_as_often_as_it_says(noisy, data, monkeypatch):
    """n = 2,000 evaluations of 3 chips, figures drawn from N(0.8, 0.05): covered is Binomial(n, 0.95) / n."""
    n, true_mean = 2000, 0.8
    rng = np.random.default_rng(20)
    figures = rng.normal(true_mean, 0.05, (n, 3))
    monkeypatch.setattr(noisy, "predict", lambda x, **options: np.zeros((len(x), 4)))
    given = iter(figures[0])
    assert list(quiet(noisy, *data, chips=3, metric=lambda y_true, y_pred: next(given)).accuracies) == list(figures[0])
    covered = 0
    for accuracies in figures:
        low, high = Evaluation(accuracies, 0, 150).interval
        covered += low <= true_mean <= high
    standard_error = np.sqrt(0.95 * 0.05 / n)
    assert abs(covered / n - 0.95) < 5 * standard_error


def test_progress_is_shown_unless_told_otherwise(noisy, data, capsys):
    ax.evaluate(noisy, *data, chips=2)
    assert "chips" in capsys.readouterr().out
    ax.evaluate(noisy, *data, chips=2, verbose=False)
    assert capsys.readouterr().out == ""
