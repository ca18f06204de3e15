import itertools
import json
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from matplotlib import pyplot

import axtrain as ax
from axtrain.controls import hardware_layers
from axtrain.training.evaluation import Evaluation
from axtrain.training.search.confirmations import farthest, most_promising, spread_out
from axtrain.training.search.front_search import front, sums, supported
from axtrain.training.search.results import SearchPoint, SearchResult, is_dominated
from axtrain.training.search.winners import choose

pytestmark = pytest.mark.eager

SRAM = ax.memories.NearThresholdSRAM


def circuit(name, voltage=None):
    memory = None if voltage is None else SRAM(voltage=voltage)
    return ax.Hardware(multiplier=ax.multipliers.get(name), weight_memory=memory)


CIRCUITS = [circuit(name) for name in ("exact", "broken_array_4_8", "operand_truncated4")]
FAULTY = [circuit("truncated6"), circuit("broken_array_4_8"), circuit("broken_array_4_8", 0.5)]


def quiet(model, x, y=None, **kwargs):
    options = {"candidates": CIRCUITS, "verbose": False, "chips": 3, "confirm": 6}
    return ax.search(model, x, y, **{**options, **kwargs})


@pytest.fixture(scope="module")
def network():
    """A classifier of 6 features and 4 classes, two layers."""
    keras.utils.set_random_seed(5)
    layers = keras.layers
    hidden = layers.Dense(16, activation="relu", name="hidden")
    return keras.Sequential([keras.Input((6,)), hidden, layers.Dense(4, "softmax", name="classes")])


@pytest.fixture(scope="module")
def data(network):
    """200 samples, with the network's own predictions as labels but for a tenth of them."""
    x = np.random.default_rng(8).normal(size=(200, 6)).astype("float32")
    labels = network.predict(x, verbose=0).argmax(axis=-1)
    return x, np.where(np.arange(200) % 10 == 0, (labels + 1) % 4, labels)


@pytest.fixture(scope="module")
def known(network, data):
    """The sensitivity to `CIRCUITS`, made once."""
    return ax.sensitivity(network, *data, candidates=CIRCUITS, verbose=False)


@pytest.fixture(scope="module")
def known_faulty(network, data):
    """The sensitivity to `FAULTY`, made once."""
    return ax.sensitivity(network, *data, candidates=FAULTY, verbose=False)


@pytest.fixture(scope="module")
def every(network, data):
    """Energy and accuracy of all nine assignments of `CIRCUITS`, each converted and evaluated anew."""
    found = {}
    for pair in itertools.product(CIRCUITS, repeat=2):
        overrides = dict(zip(("hidden", "classes"), pair, strict=True))
        model = ax.convert(network, ax.Hardware(), calibration=data[0], overrides=overrides)
        score = ax.evaluate(model, *data, chips=1, verbose=False).mean
        found[tuple(one.circuit.name for one in pair)] = (ax.energy(model).total_pj, score)
    return found


@pytest.fixture(scope="module")
def whole(network, data, known):
    """The Pareto front of all that the search would play."""
    return quiet(network, *data, confirm=9, sensitivity=known)


def brute_force(costs, rises):
    """(energy, rise) of every assignment that no other beats."""
    layers, candidates = costs.shape
    every = np.array(list(itertools.product(range(candidates), repeat=layers)))
    points = sorted(zip(*sums(costs, rises, every), strict=True))
    kept = []
    for energy, rise in points:
        if not kept or rise < kept[-1][1]:
            kept.append((energy, rise))
    return np.array(kept)


def random_problem(layers, candidates, seed):
    rng = np.random.default_rng(seed)
    costs = np.sort(rng.random((layers, candidates)), axis=1)[:, ::-1] * rng.random((layers, 1))
    return costs, np.exp(np.sort(2 * rng.normal(size=(layers, candidates)), axis=1)) * rng.random((layers, 1))


class TestFront:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("optimiser", ["exact", "nsga2"])
    def test_it_is_that_of_brute_force(self, seed, optimiser):
        costs, rises = random_problem(4, 5, seed)
        found = front(costs, rises, optimiser=optimiser, trials=625)
        np.testing.assert_allclose(np.stack(sums(costs, rises, found), axis=1), brute_force(costs, rises), atol=1e-12)

    def test_ties_and_a_single_candidate(self):
        costs, rises = np.ones((3, 1)), np.zeros((3, 1))
        assert front(costs, rises).tolist() == [[0, 0, 0]]
        costs, rises = np.ones((3, 2)), np.zeros((3, 2))
        assert len(front(costs, rises)) == 1
        assert len(supported(costs, rises)) == 1

    def test_nsga2_comes_near_it(self):
        """6 layers of 6 candidates, 46,656 assignments, 800 trials: at every rise at most a tenth dearer."""
        pytest.importorskip("optuna")
        costs, rises = random_problem(6, 6, 0)
        best = brute_force(costs, rises)
        found = front(costs, rises, optimiser="nsga2", trials=800, seed=1)
        energies, reached = sums(costs, rises, found)
        for bound in np.quantile(best[:, 1], np.linspace(0.05, 1, 20)):
            cheapest = best[best[:, 1] <= bound, 0].min()
            assert energies[reached <= bound].min() <= 1.1 * cheapest
        np.testing.assert_array_equal(found, front(costs, rises, optimiser="nsga2", trials=800, seed=1))

    def test_many_layers_are_thinned(self):
        """30 layers of 8 candidates: the convex part of the front, which is exact, is nowhere much cheaper."""
        costs, rises = random_problem(30, 8, 3)
        energies, reached = sums(costs, rises, front(costs, rises))
        assert len(energies) <= 4096
        for energy, rise in zip(*sums(costs, rises, np.array(supported(costs, rises))), strict=True):
            assert energies[reached <= rise + 1e-12].min() <= energy + 0.01 * costs.max(axis=1).sum()

    def test_without_optuna(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "optuna", None)
        costs, rises = random_problem(4, 5, 0)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'axtrain\[search\]'; optimiser='exact' needs"):
            front(costs, rises, optimiser="nsga2", trials=100)


class TestWhatIsPlayedNext:
    rises = np.array([1.0, 0.3, 0.1, 0.03, 0.01, 0.0])
    energies = np.arange(6.0)

    def test_spread_out(self):
        assert spread_out(self.rises, 3) == [5, 4, 0]  # none is below a thousandth of the median
        assert spread_out(np.zeros(3), 2) == [0]

    def test_the_most_promising_lies_about_the_bound(self):
        assert most_promising(self.energies, self.rises, {0: False, 4: True}, 4.0) in (1, 2)
        assert most_promising(self.energies, self.rises, {0: False, 1: False, 2: True}, 2.0) is None  # all played
        assert most_promising(self.energies, self.rises, {0: True}, 0.0) is None
        assert most_promising(self.energies, self.rises, {2: False, 0: False}, 6.0) in (3, 4)

    def test_the_farthest(self):
        assert farthest(self.energies, self.rises, [0, 5]) in (2, 3)
        assert farthest(self.energies, self.rises, range(6)) is None


class TestAgainstEveryAssignment:
    @pytest.mark.parametrize("budget", [0.0, 0.02, 0.2])
    def test_the_cheapest_within_the_budget(self, network, data, known, every, budget):
        found = quiet(network, *data, budget=budget, confirm=9, sensitivity=known)
        bound = every["exact", "exact"][1] - budget - 1e-12
        cheapest = min(energy for energy, score in every.values() if score >= bound)
        best = found.best or found.exact
        assert best.energy_pj == pytest.approx(cheapest)
        assert best.evaluation.mean >= bound

    def test_figures_are_those_of_conversions(self, whole, every):
        assert (whole.best, whole.model) == (None, None)
        assert len(whole.confirmed) >= 4
        for point in whole.confirmed:
            expected = every[tuple(point.assignment[name] for name in ("hidden", "classes"))]
            assert (point.energy_pj, point.accuracy) == pytest.approx(expected)
            assert point.saving == pytest.approx(1 - point.energy_pj / whole.exact.energy_pj)
        assert (whole.exact.energy_pj, whole.exact.accuracy) == pytest.approx(every["exact", "exact"])

    def test_each_candidate_in_all_layers_is_played(self, whole):
        assert sum(point.uniform for point in whole.confirmed) == len(CIRCUITS)
        labels = [text.get_text() for text in whole.plot().legends[0].get_texts()]
        assert "one candidate in all layers" in labels

    def test_dominated_points(self, whole):
        for point in whole.confirmed:
            beaten = [
                other
                for other in (*whole.confirmed, whole.exact)
                if (other.energy_pj <= point.energy_pj and other.accuracy > point.accuracy)
                or (other.energy_pj < point.energy_pj and other.accuracy >= point.accuracy)
            ]
            assert point.dominated is bool(beaten)
        assert [id(point) for point in whole.front] == [id(p) for p in whole.confirmed if not p.dominated]


def test_memories_are_judged_on_the_chips_of_evaluate(network, data, known_faulty):
    found = quiet(network, *data, candidates=FAULTY, budget=0.5, chips=4, seed=3, sensitivity=known_faulty)
    assert [point.evaluation.seed for point in found.confirmed] == [3] * len(found.confirmed)
    point = next(p for p in found.confirmed if "broken_array_4_8 at 0.5 V" in p.assignment.values())
    by_name = dict(zip(known_faulty.candidates, FAULTY, strict=True))
    overrides = {layer: by_name[name] for layer, name in point.assignment.items()}
    model = ax.convert(network, ax.Hardware(), calibration=data[0], overrides=overrides)
    fresh = ax.evaluate(model, *data, chips=4, seed=3, verbose=False)
    np.testing.assert_array_equal(point.evaluation.accuracies, fresh.accuracies)
    assert len(set(fresh.accuracies)) > 1
    winner = ax.evaluate(found.model, *data, chips=4, seed=3, verbose=False)
    np.testing.assert_array_equal(found.best.evaluation.accuracies, winner.accuracies)


def test_the_multipliers_energy(network, data):
    found = quiet(network, *data, objective="multipliers", confirm=2, measure=False)
    for point in found.confirmed:
        overrides = {layer: circuit(name) for layer, name in point.assignment.items()}
        estimate = ax.energy(ax.convert(network, ax.Hardware(), overrides=overrides))
        assert point.energy_pj == pytest.approx(sum(layer.multiply_pj for layer in estimate.layers))
    assert "multipliers" in found.plot().axes[0].get_xlabel()
    assert "predicted (gauss_newton)" in found.table()


def test_what_is_not_known_of_circuits_is_said(network, data):
    """Unknown power counts as the exact circuit's, and does not pass for a figure; signs are paid, and said."""
    candidates = [circuit("drum4"), ax.Hardware(multiplier=circuit("roba").circuit, name="mine"), circuit("exact")]
    found = quiet(network, *data, candidates=candidates, confirm=2, measure=False)
    unknown, signs = found.notes
    assert unknown.startswith("drum4, mine: no relative power known, counted as the exact multiplier's")
    assert signs.startswith(
        "drum4, mine: unsigned, so the sign of each product is handled beside the circuit, 0.0167 pJ"
    )
    assert all(f"note: {note}" in found.table() for note in found.notes)
    uniform = {point.assignment["hidden"]: point.energy_pj for point in found.confirmed if point.uniform}
    assert uniform["mine"] == uniform["drum4"] > uniform["exact"] == found.exact.energy_pj
    assert SearchResult.from_dict(found.to_dict()).notes == found.notes


def test_the_model_given_is_left_alone_and_its_float_layers_stay(network, data):
    noisy = ax.convert(network, circuit("drum4"), calibration=data[0], overrides={"classes": None})
    before = [weight.copy() for weight in noisy.get_weights()], [layer.hardware for layer in hardware_layers(noisy)]
    found = quiet(noisy, data, budget=1.0, confirm=2)
    for weight, kept in zip(noisy.get_weights(), before[0], strict=True):
        np.testing.assert_array_equal(weight, kept)
    assert [layer.hardware for layer in hardware_layers(noisy)] == before[1]
    assert set(found.best.assignment) == {"hidden"}
    assert [layer.name for layer in hardware_layers(found.model)] == ["hidden"]


class TestFolder:
    def test_it_goes_on_where_it_was_interrupted(self, network, data, counted, tmp_path):
        """The sensitivity is measured in 1 + 2 (1 + 1 + 4) passes; what is played is one pass, or one for each chip."""
        options = {"candidates": FAULTY, "budget": 0.05, "confirm": 3, "metric": counted, "samples": 50}
        straight = quiet(network, *data, **options)
        needed, counted.calls = counted.calls, 0
        for stop in (5, 15):  # in the sensitivity, and after it
            counted.stop = stop
            with pytest.raises(KeyboardInterrupt):
                quiet(network, *data, folder=tmp_path, **options)
        counted.stop = None
        result = quiet(network, *data, folder=tmp_path, **options)
        assert counted.calls <= needed + 2 * (
            1 + 3
        )  # the sensitivity's reference again, and chips of a broken-off cell
        calls = counted.calls
        again = quiet(network, *data, folder=tmp_path, **options)
        assert counted.calls == calls + 1  # the sensitivity's reference alone
        assert json.dumps(result.to_dict()) == json.dumps(again.to_dict()) == json.dumps(straight.to_dict())

    def test_what_is_not_the_same_is_refused(self, network, data, known, tmp_path):
        quiet(network, *data, confirm=2, sensitivity=known, folder=tmp_path)
        with pytest.raises(ValueError, match=r"another model, data or setting.*Received: seed=1, there 0"):
            quiet(network, *data, confirm=2, sensitivity=known, folder=tmp_path, seed=1)


class TestTraining:
    def test_the_winner_is_trained(self, network, data, known, tmp_path):
        trained = []

        def train(model):
            trained.append(model)
            model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
            model.fit(*data, epochs=4, batch_size=32, verbose=0)

        options = {"budget": 0.06, "train": train, "train_candidates": 2, "sensitivity": known, "folder": tmp_path}
        found = quiet(network, *data, **options)
        assert 1 <= len(trained) <= 3
        assert found.best.trained.mean >= found.exact.accuracy - 0.06
        measured = ax.evaluate(found.model, *data, chips=3, verbose=False)
        np.testing.assert_array_equal(measured.accuracies, found.best.trained.accuracies)
        assert np.abs(found.model.layers[0].get_weights()[0] - network.layers[0].get_weights()[0]).max() > 1e-3
        untrained = quiet(network, *data, budget=0.06, sensitivity=known, folder=tmp_path)
        assert found.best.energy_pj <= (untrained.best or untrained.exact).energy_pj
        assert f"{found.best.trained.mean:.4f}" in found.table()
        trained.clear()
        again = quiet(network, *data, **options)  # from the folder: nothing is trained twice
        assert not trained
        assert json.dumps(again.to_dict()) == json.dumps(found.to_dict())
        measured = ax.evaluate(again.model, *data, chips=3, verbose=False)
        np.testing.assert_array_equal(measured.accuracies, found.best.trained.accuracies)

    def test_training_that_ruins_is_not_taken(self, network, data, known, tmp_path):
        def ruin(model):
            for weight in model.trainable_variables:
                weight.assign(-weight)

        options = {"budget": 0.2, "sensitivity": known, "folder": tmp_path}
        found = quiet(network, *data, train=ruin, train_candidates=1, **options)
        untrained = quiet(network, *data, **options)
        assert found.best.assignment == untrained.best.assignment
        assert found.best.trained is None
        assert found.best.accuracy == untrained.best.accuracy
        assert any("left untrained" in note for note in found.notes)
        measured = ax.evaluate(found.model, *data, chips=3, verbose=False)
        assert measured.mean == pytest.approx(found.best.accuracy)


def test_a_budget_that_none_meets(network, data):
    """One circuit for both layers, and that one too coarse."""
    found = quiet(network, *data, candidates=CIRCUITS[2:], budget=0.0, confirm=2, measure=False)
    assert (found.best, found.model) == (None, None)
    assert "none of the played assignments cheaper than the reference" in found.table()


def evaluation(mean):
    return Evaluation(np.array([mean, mean]), 0, 100)


def point(energy, mean=None, trained=None, **kwargs):
    measured = {"evaluation": mean, "trained": trained}
    measured = {name: None if value is None else evaluation(value) for name, value in measured.items()}
    return SearchPoint(
        assignment={"a": "x", "b": "y"}, energy_pj=energy, saving=1 - energy / 4e3, predicted=0.1, **measured, **kwargs
    )


class Known:
    """A player of 199 points whose accuracy is known: before training a line, after it enough from an energy on."""

    def __init__(self, enough_from):
        self.enough_from, self.trainings = enough_from, []
        self.exact = replace(point(100.0, 0.9), assignment={})
        every = [replace(point(energy), assignment={"a": str(energy), "b": "x"}) for energy in np.arange(0.5, 100, 0.5)]
        self.points = [
            replace(one, evaluation=self.played(one.assignment)) if one.energy_pj % 20 == 0 else one for one in every
        ]

    def played(self, assignment):
        return evaluation(0.2 + 0.006 * float(assignment["a"]))

    def trained(self, assignment, train):
        energy = float(assignment["a"])
        self.trainings.append(energy)
        return train(energy), evaluation(0.9 if energy >= self.enough_from else 0.8)

    def chosen(self, most):
        best, model, notes = choose(self.points, self.exact, self, 0.01, str, most)
        return self.points[best], model, notes


class TestWhichAreTrained:
    @pytest.mark.parametrize("enough_from", [45.0, 61.5, 77.0, 95.0])
    def test_it_goes_on_between_the_played_ones(self, enough_from):
        known = Known(enough_from)
        best, model, notes = known.chosen(most=20)
        assert model == str(best.energy_pj)
        assert enough_from <= best.energy_pj <= enough_from + 2  # a hundredth of 100, twice
        assert len(known.trainings) == len(set(known.trainings)) <= 8  # 2 of the 4 played, 20 halved to 1
        assert notes[0].startswith(f"{len(known.trainings)} trained")

    def test_no_more_than_asked(self):
        known = Known(61.5)
        best, _, _ = known.chosen(most=3)
        assert known.trainings == [80.0, 60.0, 70.0]  # the played ones that are hopeful: 60 and 80
        assert best.energy_pj == 70.0

    def test_the_hopeless_are_played_and_not_trained(self):
        known = Known(0.0)
        best, _, _ = known.chosen(most=20)
        assert 0.2 + 0.006 * best.energy_pj >= 0.45  # half of the reference's 0.9
        assert best.energy_pj <= (0.45 - 0.2) / 0.006 + 2
        assert min(known.trainings) == best.energy_pj


@pytest.fixture
def result():
    points = (
        point(1e3, 0.5),
        point(1.5e3),
        point(2e3, 0.88, 0.93),
        point(2.5e3, 0.8, dominated=True),
        point(3e3, 0.92),
    )
    exact = SearchPoint(assignment={}, energy_pj=4e3, saving=0.0, predicted=0.0, evaluation=evaluation(0.95))
    return SearchResult(points=points, exact=exact, best=points[2], budget=0.03, rises="measured", notes=("a note",))


class TestWhatIsGivenBack:
    def test_points(self, result):
        assert [p.energy_pj for p in result.confirmed] == [1e3, 2e3, 2.5e3, 3e3]
        assert [p.energy_pj for p in result.front] == [1e3, 2e3, 3e3]
        assert [p.accuracy for p in result.points] == [0.5, None, 0.93, 0.8, 0.92]
        assert [is_dominated(p, result.points) for p in result.points] == [False, False, False, True, False]
        assert not is_dominated(result.points[0], [result.points[0], point(1e3, 0.5)])  # an equal does not

    def test_dictionary(self, result):
        described = json.loads(json.dumps(result.to_dict()))
        again = SearchResult.from_dict(described)
        assert again.to_dict() == described
        assert again.best is again.points[2]
        assert again.best.trained.mean == 0.93
        with pytest.raises(ValueError, match=r"Not a search of format.*Received: 'other'"):
            SearchResult.from_dict({"format": "other"})

    def test_table(self, result):
        lines = result.table().splitlines()
        assert str(result) == result.table()
        assert lines[0].startswith("accuracy over 2 chips (seed 0) of 100 samples; all energy")
        assert [line[0] for line in lines[2:7]] == ["+", "*", " ", "+", " "]
        assert lines[3].split()[1:7] == ["2", "nJ", "50.0", "%", "0.8800", "0.8800"]
        assert "chosen: a: x, b: y" in lines
        assert lines[-1] == "note: a note"

    def test_plot(self, result, tmp_path):
        figure = result.plot()
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels == [
            "dominated",
            "front, before training",
            "after training for it",
            "exact: 95 %",
            "budget: 92 %",
            "chosen: 93 %, 2 nJ, 50.0 % saved",
        ]
        (axes,) = figure.axes
        faint = axes.get_lines()[0]
        assert faint.get_alpha() < 0.5
        np.testing.assert_allclose(faint.get_ydata(), [80])
        np.testing.assert_allclose(axes.get_lines()[1].get_xdata(), [1, 2, 3])
        figure.savefig(tmp_path / "search.png")
        assert pyplot.get_fignums() == []


class TestErrors:
    @pytest.mark.parametrize(
        ("given", "match"),
        [
            ({"budget": -0.1}, r"`budget` must be a number >= 0 or None\. Received: budget=-0\.1"),
            ({"budget": float("nan")}, "`budget` must be a number >= 0"),
            ({"confirm": 1}, r"`confirm` must be an int >= 2\. Received: confirm=1"),
            ({"trials": 0}, "`trials` must be an int >= 1"),
            ({"samples": True}, "`samples` must be an int >= 1"),
            ({"train_candidates": 0}, "`train_candidates` must be an int >= 1"),
            ({"objective": "power"}, r"`objective` must be one of total, multipliers\. Received: objective='power'"),
            ({"optimiser": "genetic"}, "`optimiser` must be one of exact, nsga2"),
            ({"train": lambda model: None}, "`train` must be a function of the model, and needs a budget"),
            ({"train": "fit", "budget": 0.1}, "`train` must be a function of the model"),
            ({"chips": 0}, "`chips` must be an int >= 1"),
            ({"candidates": [circuit("drum4")] * 2}, "told apart by name"),
        ],
    )
    def test_arguments(self, network, data, given, match):
        with pytest.raises(ValueError, match=match):
            quiet(network, *data, **given)

    def test_a_sensitivity_of_something_else(self, network, data, known_faulty):
        with pytest.raises(ValueError, match=r"`sensitivity` must be of the layers \('hidden', 'classes'\)"):
            quiet(network, *data, sensitivity=known_faulty)
        with pytest.raises(TypeError, match=r"`model` must be a keras\.Model\. Received: str"):
            quiet("model", *data)
        with pytest.raises(ValueError, match="Give samples and labels"):
            quiet(network, data[0])
