import csv
import json
from dataclasses import replace

import keras
import numpy as np
import pytest

import axtrain as ax
from axtrain.controls import hardware_layers
from axtrain.noise_models.datapath import ILLUSTRATIVE_CHAIN
from axtrain.training.evaluation import Evaluation, accuracy
from axtrain.training.sweep import operating_points
from axtrain.training.sweep.results import Sweep, SweepPoint

pytestmark = pytest.mark.eager

SRAM = ax.memories.NearThresholdSRAM
VOLTAGES = (0.5, 0.44, 0.7)


def quiet(model, x, y=None, **kwargs):
    return ax.sweep(model, x, y, **{"chips": 4, "verbose": False, **kwargs})


def fresh(network, data, hardware):
    model = ax.convert(network, hardware, calibration=data[0])
    return ax.evaluate(model, *data, chips=4, verbose=False).accuracies


def assert_as_converted_anew(network, data, points, hardware):
    for found, described in zip(points, hardware, strict=True):
        np.testing.assert_array_equal(found.evaluation.accuracies, fresh(network, data, described))


@pytest.fixture
def network():
    """A classifier of one layer, so that little is compiled."""
    keras.utils.set_random_seed(5)
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation="softmax", name="classes")])


@pytest.fixture
def data(network):
    """100 samples, a single batch, with the network's own predictions as labels."""
    x = np.random.default_rng(8).normal(size=(100, 6)).astype("float32")
    return x, np.asarray(network(x)).argmax(axis=-1)


@pytest.fixture
def two_layers():
    """A classifier of two layers."""
    keras.utils.set_random_seed(5)
    layers = keras.layers
    return keras.Sequential([keras.Input((6,)), layers.Dense(8, name="hidden"), layers.Dense(4, name="classes")])


@pytest.fixture
def on_sram(make_noisy):
    return make_noisy(SRAM(voltage=0.6))


@pytest.fixture
def uncompiled(monkeypatch):
    """Predictions of the chip and the rate, in place of the network's, for tests that ask how often and not what."""

    def predict(model, x, **_):
        state = next(hardware_layers(model)).hardware_state
        chip, strength = (keras.ops.convert_to_numpy(value) for value in (state.chip_seed.state, state.noise_strength))
        count = len(x) if isinstance(x, np.ndarray) else sum(map(len, x))  # or batches
        return np.random.default_rng(int(chip[0])).random((count, 4)) ** (1 + strength * np.arange(4))

    monkeypatch.setattr(keras.Model, "predict", predict)


def point(voltage, accuracies, **kwargs):
    return SweepPoint(voltage=voltage, evaluation=Evaluation(np.array(accuracies, float), 0, 100), **kwargs)


class TestEachPointIsAFreshConversion:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"fault": "stuck", "share_of_ones": 0.8},
            {"fault": "random", "encoding": "sign_magnitude"},
            {"clustering": ax.memories.Clustering(row_cells=64, rows=0.2, columns=0.3)},
            {"protection": ax.memories.Parity()},
        ],
        ids=lambda options: "-".join(options) or "plain",
    )
    def test_one_compiled_function_for_all(self, network, data, monkeypatch, options):
        made = []
        original = keras.Model.make_predict_function
        monkeypatch.setattr(
            keras.Model,
            "make_predict_function",
            lambda model, force=False: (made.append(model.predict_function is None), original(model, force))[1],
        )
        model = ax.convert(network, ax.Hardware(weight_memory=SRAM(voltage=0.6, **options)), calibration=data[0])
        result = quiet(model, *data, voltages=VOLTAGES)
        assert sum(made) == 1
        assert result.voltages == (0.7, 0.5, 0.44)
        hardware = [ax.Hardware(weight_memory=SRAM(voltage=v, **options)) for v in result.voltages]
        checked = slice(2, None) if options else slice(None)  # a fresh model for each is what takes time
        assert_as_converted_anew(network, data, result.points[checked], hardware[checked])
        assert [p.rate for p in result.points] == [h.weight_memory.rate for h in hardware]
        assert len(set(result.points[-1].evaluation.accuracies)) > 1

    def test_strengths_are_exact_at_any_rate(self):
        """n = 2,000 rates: float32(ceiling) float32(strength) is float32(rate), to the last bit."""
        rng = np.random.default_rng(0)
        for fault, highest in (("persistent", 0.5), ("stuck", 1.0)):
            rates = [*(highest * 10.0 ** rng.uniform(-12, 0, 1000)).tolist(), 0.0, highest]
            parts = [ax.Hardware(weight_memory=ax.memories.BitErrors(rate=r, fault=fault)) for r in rates]
            hardware, strengths = operating_points.by_noise_strength(tuple(parts))
            played = np.float32(hardware.weight_memory.rate) * np.array(strengths, np.float32)
            np.testing.assert_array_equal(played, np.array(rates, np.float32))

    def test_memories_of_one_rate_share_and_of_several_do_not(self, network, data):
        def described(voltage, other):
            return ax.Hardware(
                weight_memory=SRAM(voltage=voltage),
                activation_memory=SRAM(voltage=voltage, fault="random", encoding="offset"),
                bias_memory=SRAM(voltage=voltage, curve=other),
            )

        weaker = ax.curves.ProbitCurve(mean_v=0.37, deviation_v=0.065, source="test")
        for other in (ax.curves.ILLUSTRATIVE, weaker):
            parts = tuple(described(voltage, other) for voltage in (0.6, 0.46))
            assert (operating_points.by_noise_strength(parts) is None) is (other is weaker)
        model = ax.convert(network, parts[0], calibration=data[0])
        assert_as_converted_anew(network, data, quiet(model, *data, voltages=(0.46,)).points, parts[1:])

    def test_what_else_follows_the_strength_is_compiled_for_each_point(self, network, data):
        robust = ax.memories.RobustBits(count=2, rate=0.05)
        model = ax.convert(
            network, ax.Hardware(weight_memory=SRAM(voltage=0.6, protection=robust)), calibration=data[0]
        )
        result = quiet(model, *data, voltages=(0.44, 0.9))
        hardware = [ax.Hardware(weight_memory=SRAM(voltage=v, protection=robust)) for v in (0.9, 0.44)]
        assert_as_converted_anew(network, data, result.points, hardware)

    @pytest.mark.parametrize("kind", [ax.datapaths.TimingErrors, ax.datapaths.DroppedMACs])
    def test_a_datapath_of_the_chain_is_made_anew(self, network, data, kind):
        def described(voltage):
            return ax.Hardware(weight_memory=SRAM(voltage=voltage), datapath=kind.at_voltage(voltage))

        result = quiet(ax.convert(network, described(0.75), calibration=data[0]), *data, voltages=(0.66,))
        assert result.notes == ()
        assert_as_converted_anew(network, data, result.points, [described(0.66)])

    def test_a_measured_chip(self, network, data):
        rng = np.random.default_rng(3)
        cells = rng.permutation(160 * 8)
        maps = []
        for voltage, count in ((0.5, 120), (0.6, 20), (0.7, 0)):
            chosen = cells[:count]
            maps.append(
                ax.memories.FaultMap(
                    words=160,
                    word_bits=8,
                    addresses=tuple((chosen // 8).tolist()),
                    bits=tuple((chosen % 8).tolist()),
                    voltage=voltage,
                )
            )
        memory = ax.memories.MeasuredMemory(maps=tuple(maps), voltage=0.7, rotate=True)
        model = ax.convert(network, ax.Hardware(weight_memory=memory), calibration=data[0])
        result = quiet(model, *data, voltages=(0.5, 0.65, 0.7))
        assert result.rates == (0.0, 20 / 1280, 120 / 1280)
        hardware = [ax.Hardware(weight_memory=memory.at(voltage)) for voltage in (0.7, 0.65, 0.5)]
        assert_as_converted_anew(network, data, result.points, hardware)
        with pytest.raises(ValueError, match="The operating point must name one map"):
            quiet(model, *data, voltages=(0.4, 0.7))

    def test_rates(self, network, data, make_noisy):
        BitErrors = ax.memories.BitErrors
        result = quiet(make_noisy(BitErrors(rate=0.3, fault="persistent")), *data, rates=(0.1, 0, 0.01))
        assert (result.rates, result.voltages) == ((0.0, 0.01, 0.1), (None, None, None))
        hardware = [ax.Hardware(weight_memory=BitErrors(rate=r, fault="persistent")) for r in result.rates]
        assert_as_converted_anew(network, data, result.points, hardware)

    def test_layers_of_different_hardware(self, two_layers, data):
        def converted(voltage):
            hardware = ax.Hardware(weight_memory=SRAM(voltage=voltage))
            own = ax.Hardware(weight_memory=SRAM(voltage=voltage, fault="stuck"))
            return ax.convert(two_layers, hardware, calibration=data[0], overrides={"classes": own})

        result = quiet(converted(0.6), *data, voltages=(0.44, 0.5))
        expected = ax.evaluate(converted(0.44), *data, chips=4, verbose=False)
        np.testing.assert_array_equal(result.points[1].evaluation.accuracies, expected.accuracies)

    def test_a_statistical_fidelity(self, network, data):
        def converted(voltage):
            hardware = ax.Hardware(multiplier=ax.multipliers.get("drum3"), weight_memory=SRAM(voltage=voltage))
            return ax.convert(network, hardware, calibration=data[0], fidelity="calibrated", rank=1)

        result = quiet(converted(0.6), *data, voltages=(0.46,))
        expected = ax.evaluate(converted(0.46), *data, chips=4, verbose=False)
        np.testing.assert_array_equal(result.points[0].evaluation.accuracies, expected.accuracies)

    def test_other_hardware_keeps_ranges_and_what_is_in_float(self, two_layers, data):
        hardware = ax.Hardware(weight_memory=SRAM(voltage=0.6), multiplier=ax.multipliers.get("drum4"))
        partly = ax.convert(two_layers, ax.Hardware(), calibration=data[0], overrides={"classes": None})
        result = quiet(partly, *data, voltages=(0.44,), hardware=hardware)
        low = ax.Hardware(weight_memory=SRAM(voltage=0.44), multiplier=hardware.multiplier)
        anew = ax.convert(two_layers, low, calibration=data[0], overrides={"classes": None})
        expected = ax.evaluate(anew, *data, chips=4, verbose=False)
        np.testing.assert_array_equal(result.points[0].evaluation.accuracies, expected.accuracies)
        assert result.points[0].energy_pj == ax.energy(anew).total_pj


@pytest.mark.parametrize("scaled", [True, False])
def test_the_hardware_without_faults_is_measured_too(network, data, scaled, tmp_path):
    protection = None if scaled else ax.memories.RobustBits(count=2, rate=0.05)
    hardware = ax.Hardware(
        multiplier=ax.multipliers.get("drum3"), weight_memory=SRAM(voltage=0.6, protection=protection)
    )
    result = quiet(ax.convert(network, hardware, calibration=data[0]), *data, voltages=(0.44,), folder=tmp_path)
    clean = ax.convert(network, ax.Hardware(multiplier=ax.multipliers.get("drum3")), calibration=data[0])
    assert result.fault_free == ax.evaluate(clean, *data, chips=1, verbose=False).mean
    assert result.fault_free > result.points[0].evaluation.mean
    assert list(json.loads((tmp_path / "fault_free.json").read_text()).values()) == [result.fault_free]


def test_chips_are_the_same_at_every_voltage_and_their_faults_grow(on_sram, data):
    both = quiet(on_sram, *data, voltages=(0.5, 0.44), seed=5)
    alone = quiet(on_sram, *data, voltages=(0.44,), seed=5)
    assert both.points[1].evaluation.to_dict() == alone.points[0].evaluation.to_dict()
    assert both.points[0].rate < both.points[1].rate
    codes = np.zeros(4096, np.int32)
    for chip in (0, 1):
        higher, lower = (np.asarray(SRAM(voltage=voltage).read(codes, 8, chip)) & 255 for voltage in (0.5, 0.44))
        assert (higher & ~lower).sum() == 0
        counts = [np.unpackbits(faults.astype(np.uint8)).sum() for faults in (lower, higher)]
        assert counts[0] > counts[1] > 0


def test_the_model_given_is_left_alone(on_sram, data):
    ax.set_chip(on_sram, 9)
    ax.set_noise_strength(on_sram, 0.25)

    def everything():
        states = [layer.hardware_state for layer in hardware_layers(on_sram)]
        seeds = [generator.state for state in states for generator in state.generators.values()]
        values = [keras.ops.convert_to_numpy(variable).tolist() for variable in (*on_sram.variables, *seeds)]
        return values, [layer.hardware for layer in hardware_layers(on_sram)], [state.hardware for state in states]

    before = everything()
    result = quiet(on_sram, *data, voltages=(0.46,))
    assert everything() == before
    ax.set_noise_strength(on_sram, 1)  # and the sweep was of the full strength
    assert quiet(on_sram, *data, voltages=(0.46,)).to_dict() == result.to_dict()


@pytest.mark.usefixtures("uncompiled")
def test_energy_is_that_of_each_voltage(network, on_sram, data):
    reference = ax.Hardware(multiplier=ax.multipliers.get("drum4"))
    result = quiet(on_sram, *data, voltages=(0.5, 0.9), chips=1, reference=reference)
    for found in result.points:
        model = ax.convert(network, ax.Hardware(weight_memory=SRAM(voltage=found.voltage)))
        expected = ax.energy(model, reference=reference)
        assert (found.energy_pj, found.saving) == (expected.total_pj, expected.saving)
    assert result.points[0].energy_pj > result.points[1].energy_pj


@pytest.mark.usefixtures("uncompiled")
def test_no_energy_where_sizes_are_open(data):
    layers = keras.layers
    x = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")
    model = keras.Sequential(
        [keras.Input((None, 3)), layers.Conv1D(4, 2, name="conv"), layers.GlobalMaxPooling1D(name="pool")]
    )
    noisy = ax.convert(model, ax.Hardware(weight_memory=SRAM(voltage=0.6)), calibration=x)
    found = quiet(noisy, x, np.zeros(8, int), voltages=(0.6,), chips=1)
    assert (found.points[0].energy_pj, found.points[0].saving) == (None, None)
    assert " - " in found.table()


@pytest.mark.usefixtures("uncompiled")
class TestFolder:
    def run(self, model, data, folder, metric=accuracy, **kwargs):
        return quiet(model, *data, **{"voltages": VOLTAGES, "folder": folder, "metric": metric, **kwargs})

    @pytest.mark.parametrize("stop", [0, 1, 7, 11])
    def test_it_goes_on_where_it_was_interrupted(self, on_sram, data, counted, tmp_path, stop):
        counted.stop = stop
        with pytest.raises(KeyboardInterrupt):
            self.run(on_sram, data, tmp_path, counted)
        kept = [json.loads(file.read_text()) for file in tmp_path.glob("voltage_*.json")]
        assert sum(map(len, kept)) == stop
        counted.stop = None
        result = self.run(on_sram, data, tmp_path, counted)
        assert counted.calls == 13  # three voltages of four chips and one without faults, none twice
        assert not list(tmp_path.glob(".*"))
        again = self.run(on_sram, data, tmp_path, counted)
        assert counted.calls == 13
        straight = quiet(on_sram, *data, voltages=VOLTAGES, metric=type(counted)())
        assert result.to_dict() == again.to_dict() == straight.to_dict()

    def test_voltages_and_chips_are_added(self, on_sram, data, counted, tmp_path):
        self.run(on_sram, data, tmp_path, counted)
        more = self.run(on_sram, data, tmp_path, counted, voltages=(*VOLTAGES, 0.55), chips=6)
        assert counted.calls == 25
        assert (
            more.to_dict() == quiet(on_sram, *data, voltages=more.voltages, chips=6, metric=type(counted)()).to_dict()
        )

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ("weights", "network="),
            ("hardware", "network="),
            ("data", "data="),
            ("metric", "metric="),
            ("seed", "seed=1, there 0"),
            ("batch_size", "batch_size=64, there 128"),
        ],
    )
    def test_what_is_not_the_same_is_refused(self, network, make_noisy, on_sram, data, tmp_path, changed, named):
        self.run(on_sram, data, tmp_path, voltages=(0.7,), chips=1)
        x, y = data
        options = {}
        if changed == "weights":
            kernel = on_sram.layers[0].kernel
            kernel.assign(kernel * 1.0001)
        elif changed == "hardware":
            on_sram = make_noisy(SRAM(voltage=0.6, fault="stuck"))
        elif changed == "data":
            x = x + np.float32(1e-6)
        elif changed == "metric":
            options["metric"] = lambda y_true, y_pred: 0.0
        else:
            options[changed] = {"seed": 1, "batch_size": 64}[changed]
        with pytest.raises(ValueError, match="another model, data or setting.*Give another folder") as caught:
            self.run(on_sram, (x, y), tmp_path, **options)
        assert named in str(caught.value).split("Received: ")[1]
        assert str(caught.value).count(", there ") == 1  # and nothing else differs

    def test_the_same_network_made_again_is_the_same(self, network, make_noisy, data, counted, tmp_path):
        self.run(make_noisy(SRAM(voltage=0.6)), data, tmp_path, counted)
        self.run(make_noisy(SRAM(voltage=0.6)), data, tmp_path, counted)
        assert counted.calls == 13

    def test_files_that_are_none(self, on_sram, data, tmp_path):
        self.run(on_sram, data, tmp_path, voltages=(0.7,), chips=1)
        (tmp_path / "voltage_0.7.json").write_text('{"12": 0.')
        with pytest.raises(ValueError, match=r"voltage_0\.7\.json cannot be read as a file of kept figures; remove it"):
            self.run(on_sram, data, tmp_path)

    @pytest.mark.parametrize(
        ("kept", "match"),
        [
            ("NaN", "what is no share from 0 to 1"),
            ("7.5", "what is no share from 0 to 1"),
            ("-0.1", "what is no share from 0 to 1"),
            ("true", "what is no share from 0 to 1"),
            ('"0.5"', "what is no share from 0 to 1"),
            (None, "a chip that is none of this seed's"),
        ],
    )
    def test_figures_that_cannot_have_been_measured(self, on_sram, data, tmp_path, kept, match):
        self.run(on_sram, data, tmp_path, voltages=(0.7,), chips=1)
        file = tmp_path / "voltage_0.7.json"
        (chip,) = json.loads(file.read_text())
        for name in (chip,) if kept else ("-1", "12", "one"):
            file.write_text(f'{{"{name}": {kept or 0.5}}}')
            with pytest.raises(
                ValueError, match=rf"voltage_0\.7\.json holds a figure of {match}.*chip {name}, figure "
            ):
                self.run(on_sram, data, tmp_path)


@pytest.fixture
def result():
    return Sweep(
        points=(
            point(0.7, [0.95, 0.97], rate=1e-6, energy_pj=4000.0, saving=0.25),
            point(0.5, [0.9, 0.92], rate=1e-2, energy_pj=3000.0, saving=0.4),
        ),
        notes=("datapath stays",),
    )


class TestWhatIsGivenBack:
    def test_dictionary(self, result):
        described = json.loads(json.dumps(result.to_dict()))
        again = Sweep.from_dict(described)
        assert again.to_dict() == described
        assert (again.voltages, again.rates, again.notes) == ((0.7, 0.5), (1e-6, 1e-2), ("datapath stays",))
        np.testing.assert_array_equal(again.points[1].evaluation.accuracies, [0.9, 0.92])
        for wrong, received in (({"format": "other"}, "'other'"), ([], "'list'")):
            with pytest.raises(ValueError, match=f"Not a sweep of format.*Received: {received}"):
                Sweep.from_dict(wrong)

    def test_table(self, result):
        lines = result.table().splitlines()
        assert str(result) == result.table()
        assert lines[0] == "accuracy over 2 chips (seed 0) of 100 samples"
        assert lines[2].split()[:5] == ["0.700", "V", "1.0e-06", "0.9600", "0.0141"]
        assert lines[2].endswith("4 nJ  25.0 %")
        assert lines[3].split()[3:6] == ["0.9100", "0.0141", "0.9000"]
        assert lines[4] == "note: datapath stays"

    def test_csv(self, result, tmp_path):
        result.to_csv(tmp_path / "sweep.csv")
        with open(tmp_path / "sweep.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [float(row["voltage"]) for row in rows] == [0.7, 0.5]
        assert [float(rows[1][name]) for name in ("chip_1", "chip_2", "worst", "energy_pj")] == [0.9, 0.92, 0.9, 3000]
        assert float(rows[0]["interval_low"]) == result.points[0].evaluation.interval[0]

    def test_plot_marks_the_lowest_good_voltage(self, result):
        labels = [text.get_text() for text in result.plot(0.95).legends[0].get_texts()]
        assert "operating point: 0.7 V, mean 96 %, worst 95 %, 4 nJ" in labels
        assert "required of the mean: 95 %" in labels
        labels = [text.get_text() for text in result.plot(0.99).legends[0].get_texts()]
        assert "required of the mean: 99 %, not met" in labels
        assert not [text for text in result.plot().legends[0].get_texts() if "required" in text.get_text()]
        figure = result.plot(0.9, worst=True)
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert "required of the worst chip: 90 %" in labels
        assert "operating point: 0.5 V, mean 91 %, worst 90 %, 3 nJ, the last swept" in labels
        np.testing.assert_allclose(figure.axes[0].get_lines()[-1].get_xydata(), [[0.5, 90]])  # on the worst chip's line
        assert not [text for text in labels if "without faults" in text]
        marked = replace(result, fault_free=0.98).requiring(0.9, worst=True)
        again = [text.get_text() for text in marked.plot().legends[0].get_texts()]
        assert sorted([*labels, "without faults: 98 %"]) == sorted(again)

    def test_requirement_and_verdict_are_kept(self, result):
        required = replace(result, fault_free=0.98).requiring(0.955)
        described = json.loads(json.dumps(required.to_dict()))
        assert described["operating_point"] == {"voltage": 0.7, "rate": 1e-6}
        again = Sweep.from_dict(described)
        assert (again.requirement, again.fault_free) == (required.requirement, 0.98)
        assert again.verdict == required.verdict
        assert again.verdict.startswith("lowest voltage for an accuracy of 0.955: 0.7 V (error rate 1e-06): ")
        assert again.verdict.endswith("; judged by the mean; without faults it is 0.9800")
        assert "without faults: accuracy 0.9800" in str(again)
        last = required.requiring(0.9, chip_yield=0.5)
        assert "judged by 50 % of the chips" in last.verdict
        assert last.verdict.endswith("it is the lowest that was swept, lower ones were not measured")
        none = required.requiring(0.99, worst=True)
        assert (none.operating_point, none.to_dict()["operating_point"]) == (None, None)
        assert none.verdict.startswith("No safe voltage found. ")
        older = {key: described[key] for key in ("format", "points", "notes")}
        assert (Sweep.from_dict(older).requirement, Sweep.from_dict(older).fault_free) == (None, None)
        assert (result.operating_point, result.verdict) == (None, "nothing was required of the points")


class TestLowestVoltage:
    def test_all_higher_ones_are_good_too(self):
        """The mean falls, rises and falls: 0.5 V is good alone and does not count."""
        means = {0.9: 0.95, 0.8: 0.94, 0.7: 0.93, 0.6: 0.89, 0.5: 0.92, 0.4: 0.3}
        result = Sweep(points=tuple(point(v, [m, m]) for v, m in means.items()))
        assert ax.lowest_voltage(result, accuracy=0.9).voltage == 0.7
        assert ax.lowest_voltage(result, 0.93).voltage == 0.7
        assert ax.lowest_voltage(result, 0.94).voltage == 0.8
        assert ax.lowest_voltage(result, 0.89).voltage == 0.5
        assert ax.lowest_voltage(result, 0.2) is result.points[-1]

    def test_ways_to_judge(self):
        result = Sweep(
            points=(
                point(0.8, [0.96, 0.96]),
                point(0.7, [0.95, 0.95, 0.93, 0.95]),
                point(0.6, [0.95, 0.93, 0.95, 0.92]),
            )
        )
        assert result.points[1].evaluation.interval[0] < 0.9372 < result.points[2].evaluation.mean
        assert ax.lowest_voltage(result, 0.9372).voltage == 0.6
        assert ax.lowest_voltage(result, 0.93, worst=True).voltage == 0.7
        assert ax.lowest_voltage(result, 0.9372, confident=True).voltage == 0.8
        with pytest.raises(ValueError, match="worst=True, confident=True"):
            ax.lowest_voltage(result, 0.9, worst=True, confident=True)

    def test_a_mean_of_figures_that_are_alike_is_no_less_than_they(self):
        result = Sweep(points=(point(0.7, [0.83] * 20),))
        assert result.points[0].evaluation.mean < 0.83
        assert ax.lowest_voltage(result, 0.83) is result.points[0]

    def test_a_yield_is_a_share_of_the_chips(self):
        chips = [0.8, *[0.95] * 19]
        result = Sweep(points=(point(0.8, [0.96] * 20), point(0.7, chips), point(0.6, [0.8, *chips[:-1]])))
        assert ax.lowest_voltage(result, 0.95, chip_yield=0.95).voltage == 0.7  # 19 of 20
        assert ax.lowest_voltage(result, 0.95, chip_yield=0.951).voltage == 0.8
        assert ax.lowest_voltage(result, 0.95, chip_yield=0.9).voltage == 0.6
        assert ax.lowest_voltage(result, 0.95, chip_yield=1).voltage == 0.8
        with pytest.raises(
            ValueError, match=r"No safe voltage found.*the accuracy that 95 % of the chips reach is at best 0\.96"
        ):
            ax.lowest_voltage(result, 0.97, chip_yield=0.95)
        for wrong in (0, 1.5, float("nan"), True, "all"):
            with pytest.raises(ValueError, match=f"`chip_yield`.*Received: chip_yield={wrong!r}"):
                ax.lowest_voltage(result, 0.9, chip_yield=wrong)
        with pytest.raises(ValueError, match=r"or by the yield.*chip_yield=0\.5"):
            ax.lowest_voltage(result, 0.9, worst=True, chip_yield=0.5)

    def test_none_is_good_enough(self):
        result = Sweep(points=(point(0.8, [0.7, 0.9]), point(0.7, [0.8, 0.84])))
        with pytest.raises(
            ValueError, match=r"the worst chip's accuracy is at best 0\.8000, at 0\.7 V.*accuracy=0\.95"
        ):
            ax.lowest_voltage(result, 0.95, worst=True)
        with pytest.raises(ValueError, match=r"the mean accuracy is at best 0\.8200, at 0\.7 V"):
            ax.lowest_voltage(result, 0.9)
        with pytest.raises(ValueError, match=r"the lower end of the mean's interval accuracy is at best"):
            ax.lowest_voltage(result, 0.9, confident=True)
        with pytest.raises(ValueError, match="accuracy=nan"):
            ax.lowest_voltage(result, float("nan"))

    def test_rates_have_a_highest_one(self):
        rates = (0.0, 0.01, 0.1)
        result = Sweep(points=tuple(point(None, [0.9 - r] * 2, rate=r) for r in rates))
        assert ax.lowest_voltage(result, 0.88).rate == 0.01
        with pytest.raises(ValueError, match="at rate 0. Sweep"):
            ax.lowest_voltage(result, 0.95)


class TestErrors:
    @pytest.mark.parametrize("given", [{}, {"voltages": (0.5,), "rates": (0.1,)}])
    def test_voltages_or_rates(self, on_sram, data, given):
        with pytest.raises(ValueError, match=r"Give `voltages` or `rates`\. Received: voltages="):
            quiet(on_sram, *data, **given)

    @pytest.mark.parametrize("given", [(), 0.5, (0.5, 0.5), (0.5, float("nan")), ("a",), ((0.5,),), (True,)])
    def test_values_that_are_none(self, on_sram, data, given):
        with pytest.raises(ValueError, match="`voltages` must be a list of different finite numbers"):
            quiet(on_sram, *data, voltages=given)

    def test_voltages_that_the_memory_does_not_take(self, on_sram, data, counted):
        for wrong, match in ((1.2, "must not exceed nominal_voltage=1.0"), (-0.1, "positive number of volts")):
            with pytest.raises(ValueError, match=match):
                quiet(on_sram, *data, voltages=(0.5, wrong), metric=counted)
        with pytest.raises(ValueError, match="more often wrong than right.*at 0.2 V"):
            quiet(on_sram, *data, voltages=(0.5, 0.2), metric=counted)
        assert counted.calls == 0

    def test_nothing_to_sweep(self, on_sram, make_noisy, data):
        with pytest.raises(ValueError, match=r"rate of its own, such as BitErrors\. Received: weight_memory \(NearTh"):
            quiet(on_sram, *data, rates=(0.1,))
        with pytest.raises(
            ValueError, match=r"Nothing to sweep.*with a voltage.*Received: weight_memory \(BitErrors\)"
        ):
            quiet(make_noisy(ax.memories.BitErrors(rate=0.1)), *data, voltages=(0.5,))
        with pytest.raises(ValueError, match="Received: no memory"):
            quiet(make_noisy(None), *data, voltages=(0.5,))

    def test_models_that_cannot_be_swept(self, network, data, make_noisy):
        with pytest.raises(ValueError, match="No layer of this model runs on hardware; use axtrain.convert"):
            quiet(network, *data, voltages=(0.5,))
        with pytest.raises(TypeError, match=r"`model` must be a keras\.Model\. Received: str"):
            quiet("model", *data, voltages=(0.5,))
        gaussian = make_noisy(SRAM(voltage=0.6), fidelity="gaussian")
        with pytest.raises(ValueError, match="statistical fidelity is fitted to hardware"):
            quiet(gaussian, *data, voltages=(0.5,), hardware=ax.Hardware(weight_memory=SRAM(voltage=0.6)))

    @pytest.mark.usefixtures("uncompiled")
    def test_data_that_are_none(self, on_sram, data):
        x, y = data
        pair = quiet(on_sram, (x, y), voltages=(0.46,), chips=2)
        assert pair.to_dict() == quiet(on_sram, x, y, voltages=(0.46,), chips=2).to_dict()
        with pytest.raises(ValueError, match="Give samples and labels"):
            quiet(on_sram, x, voltages=(0.5,))
        with pytest.raises(ValueError, match="same length"):
            quiet(on_sram, x, y[:-1], voltages=(0.5,))
        with pytest.raises(ValueError, match="at least one sample"):
            quiet(on_sram, x[:0], y[:0], voltages=(0.5,))
        with pytest.raises(ValueError, match="`chips` must be an int >= 1"):
            quiet(on_sram, x, y, voltages=(0.5,), chips=0)


@pytest.mark.usefixtures("uncompiled")
class TestNotes:
    def test_what_stays_is_said(self, network, data):
        other = ax.datapaths.CarryChain(**{**vars(ILLUSTRATIVE_CHAIN), "clock_period_ps": 1200.0, "source": "test"})
        hardware = ax.Hardware(
            weight_memory=SRAM(voltage=0.6),
            bias_memory=ax.memories.BitErrors(rate=1e-3),
            datapath=ax.datapaths.TimingErrors.at_voltage(0.75, other),
        )
        model = ax.convert(network, hardware, calibration=data[0])
        left = quiet(model, *data, voltages=(0.74,), chips=1)
        assert left.notes == (
            "bias_memory (BitErrors) stays as it is, at rate 0.001",
            "datapath (TimingErrors) stays as it is, since `chain` did not make it",
        )
        assert "note: datapath (TimingErrors)" in str(left)
        assert len(quiet(model, *data, voltages=(0.74,), chips=1, chain=other).notes) == 1

    def test_a_datapath_whose_width_is_not_known_stays(self):
        never_late = ax.datapaths.DroppedMACs.at_voltage(1.0)
        assert never_late.rate == 0
        assert never_late.with_voltage(0.7, ILLUSTRATIVE_CHAIN) is None
        narrow = ax.datapaths.DroppedMACs.at_voltage(0.7, accumulator_bits=20)
        at_lower = ax.datapaths.DroppedMACs.at_voltage(0.65, accumulator_bits=20)
        assert narrow.with_voltage(0.65, ILLUSTRATIVE_CHAIN) == at_lower
        measured = ax.datapaths.MeasuredDatapath(error_rate=0.1, voltage=0.7)
        assert measured.with_voltage(0.6, ILLUSTRATIVE_CHAIN) is None

    def test_ranges_that_follow_the_batches(self, network, data):
        found = quiet(network, *data, voltages=(0.6,), chips=1, hardware=ax.Hardware(weight_memory=SRAM(voltage=0.6)))
        assert found.notes == ("activation ranges are each batch's own; convert with calibration data to fix them",)


@pytest.mark.usefixtures("uncompiled")
def test_without_chance_one_chip_stands_for_all(make_noisy, data, counted):
    memory = ax.memories.BitErrors(rate=0.3, fault="persistent")
    result = quiet(make_noisy(memory), *data, rates=(0.0, 0.1), metric=counted)
    assert counted.calls == 1 + 4 + 1  # and the one without faults
    assert [len(p.evaluation.accuracies) for p in result.points] == [4, 4]


@pytest.mark.usefixtures("uncompiled")
def test_progress_is_shown_and_the_cursor_given_back(on_sram, data, capsys, counted):
    ax.sweep(on_sram, *data, voltages=(0.5, 0.6), chips=2)
    assert "2 points, 2 chips" in capsys.readouterr().out
    counted.stop = 1
    with pytest.raises(KeyboardInterrupt):
        ax.sweep(on_sram, *data, voltages=(0.5, 0.6), chips=2, metric=counted)
    from rich import get_console

    assert not getattr(get_console(), "_live_stack", None)
