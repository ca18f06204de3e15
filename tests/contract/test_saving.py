"""Whatever axtrain registers with Keras comes back from Keras: one example of each class, and whole networks."""

import importlib
import json

import fresh
import keras
import numpy as np
import pytest

import axtrain as ax
from axtrain.layers.activation_pair import ActivationPairState
from axtrain.layers.state import HardwareState

memories, layers = ax.memories, ax.layers
CIRCUIT = ax.multipliers.get("drum4")
OWN = ax.Multiplier(
    np.outer(np.arange(16), np.arange(16)) // 3 * 3, name="own", bits=4, signed=False, power=0.4, source="made here"
)
CURVE = ax.curves.TabulatedCurve(voltages=(0.5, 0.6), rates=(1e-2, 1e-4), source="made here")
CLUSTERS = memories.Clustering(row_cells=64, rows=0.2, columns=0.1)
LEAKY = memories.ApproximateDRAM(refresh_interval_s=1.0, share_of_anti_cells=0.3)
CARRIES = ax.datapaths.TimingErrors.at_voltage(0.75)
QUANTISATION = ax.Quantisation(weight_bits=6, percentile=99.0, bias_bits=12)
EVERYTHING = ax.Hardware(
    multiplier=CIRCUIT,
    weight_memory=memories.NearThresholdSRAM(voltage=0.56, curve=CURVE, clustering=CLUSTERS),
    activation_memory=LEAKY,
    bias_memory=memories.BitErrors(rate=0.001),
    datapath=CARRIES,
    quantisation=QUANTISATION,
    energy=ax.EnergyModel(add_pj_per_bit=0.01),
    name="everything",
)
FAULTY = ax.Hardware(multiplier=CIRCUIT, weight_memory=memories.BitErrors(rate=0.01, fault="persistent"))


HARDWARE_LAYERS = [
    layers.ApproxDense(3, activation="tanh", hardware=EVERYTHING),
    layers.ApproxConv1D(3, 2, hardware=EVERYTHING),
    layers.ApproxConv2D(3, 2, strides=2, hardware=EVERYTHING),
    layers.ApproxDepthwiseConv2D(3, hardware=EVERYTHING),
    layers.ApproxSeparableConv2D(3, 2, hardware=EVERYTHING),
    layers.ApproxConv2DTranspose(3, 2, hardware=EVERYTHING),
    layers.ApproxEinsumDense("abc,cd->abd", (None, 6), bias_axes="d", hardware=EVERYTHING),
    layers.ApproxMultiHeadAttention(2, 3, hardware=EVERYTHING),
    layers.ApproxLSTM(4, return_sequences=True, hardware=EVERYTHING),
    layers.ApproxGRU(4, hardware=EVERYTHING),
]


coded = ax.coded
ERRORS = coded.SoftErrors(
    rate=0.1, where=("update", "decode"), kind="nan", latency=coded.ShiftedExponential(1.0, 2.0), deadline=3.0
)
CODED_LAYERS = [
    coded.CodedDense(3, code=coded.CodeNet(2, 2), faults=ERRORS, activation="tanh", kernel_regularizer="l2"),
    coded.CodedConv2D(3, 2, strides=2, code=coded.SystematicMDS(4, 2), adversarial=True, use_bias=False),
]


def classifier(hardware=FAULTY, **options):
    """A calibrated network from `convert`."""
    keras.utils.set_random_seed(4)
    pull, narrow = ax.MultiplierError(CIRCUIT, 0.1), ax.BitFlipEnergy(0.01, rate=0.02)
    stack = [
        keras.layers.Dense(6, activation="tanh", kernel_regularizer=pull, kernel_constraint=ax.WeightRange(0.7)),
        keras.layers.Dense(3, kernel_regularizer=narrow),
    ]
    samples = np.random.default_rng(3).normal(size=(32, 8)).astype(np.float32)
    if hardware is None:
        return keras.Sequential([keras.Input((8,)), keras.layers.Dense(6), keras.layers.Dense(3)])
    return ax.convert(keras.Sequential([keras.Input((8,)), *stack]), hardware, samples, **options)


EXAMPLES = {
    "Hardware": lambda: EVERYTHING,
    "Multiplier": lambda: OWN,
    "Quantisation": lambda: QUANTISATION,
    "EnergyModel": lambda: EVERYTHING.energy,
    "ProbitCurve": lambda: ax.curves.ProbitCurve(mean_v=0.4, deviation_v=0.05, source="made here"),
    "TabulatedCurve": lambda: CURVE,
    "BitErrors": lambda: memories.BitErrors(rate=0.02, fault="stuck", protection=memories.SECDED(), share_of_ones=0.2),
    "NearThresholdSRAM": lambda: EVERYTHING.weight_memory,
    "ApproximateDRAM": lambda: LEAKY,
    "MeasuredMemory": lambda: memories.MeasuredMemory(
        maps=(memories.FaultMap(words=32, word_bits=8, addresses=(3, 9), bits=(0, 7), values=(1, 0), voltage=0.6),),
        voltage=0.6,
        rotate=True,
    ),
    "TimingErrors": lambda: CARRIES,
    "DroppedMACs": lambda: ax.datapaths.DroppedMACs(rate=0.1, source="made here"),
    "MeasuredDatapath": lambda: ax.datapaths.MeasuredDatapath(error_rate=0.2, bias=3.0, std=2.0, gain=1.1),
    "OutputSensitivity": lambda: ax.OutputSensitivity(0.1, layers=["a*"], every=3, probes=2),
    "LossGradient": lambda: ax.LossGradient(0.1, fraction=0.5),
    "Curvature": lambda: ax.Curvature(0.1, weighting="constant", method="first_order", radius=0.02),
    "WeightRange": lambda: ax.WeightRange(0.3),
    "MultiplierError": lambda: ax.MultiplierError(OWN, 0.2, activations=np.arange(16.0), axis=(0, 1)),
    "BitFlipEnergy": lambda: ax.BitFlipEnergy(0.2, memory=LEAKY, bits=6, axis=0),
    "HardwareState": lambda: HardwareState(EVERYTHING, calibrated=True, rank=2, name="one"),
    "ActivationPairState": lambda: ActivationPairState(EVERYTHING, name="two"),
    "BitErrorTraining": lambda: ax.with_bit_errors(classifier(), clip_norm=0.3, start_loss=2.0),
    "SensitivityTraining": lambda: ax.with_sensitivity(classifier(), ax.OutputSensitivity(0.1, every=2)),
    **{type(layer).__name__: lambda layer=layer: layer for layer in (*HARDWARE_LAYERS, *CODED_LAYERS)},
    "CodedModel": lambda: coded.convert(classifier(None), coded.CodeNet(2, 2), ERRORS, checkpoint_every=7),
    "CodeNet": lambda: coded.CodeNet(4, 5, 2),
    "SystematicMDS": lambda: coded.SystematicMDS(8, 5),
    "Uncoded": lambda: coded.Uncoded(2, 3),
    "Checksum": lambda: coded.Checksum(rows=2),
    "Replication": lambda: coded.Replication(3, rows=2),
    "GeneralizedPolyDot": lambda: coded.GeneralizedPolyDot(3, 2, workers=14),
    "SoftErrors": lambda: ERRORS,
    "ShiftedExponential": lambda: ERRORS.latency,
    "MeasuredLatency": lambda: coded.MeasuredLatency((1.0, 1.5, 9.0)),
}


def test_every_registered_class_has_an_example():
    importlib.import_module("axtrain.loading")
    names = {name for name in keras.saving.get_custom_objects() if name.startswith("axtrain>")}
    assert {f"axtrain>{name}" for name in EXAMPLES} == names


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_object_comes_back_from_its_serialised_form(name):
    given = EXAMPLES[name]()
    written = json.dumps(keras.saving.serialize_keras_object(given))
    assert json.loads(written)["registered_name"] == f"axtrain>{name}"
    again = keras.saving.deserialize_keras_object(json.loads(written))
    assert type(again) is type(given)
    assert json.dumps(keras.saving.serialize_keras_object(again)) == written
    if not isinstance(given, (keras.Layer, keras.constraints.Constraint, keras.regularizers.Regularizer)):
        assert again == given


def test_a_description_may_stand_in_the_configuration_of_a_layer_of_ones_own(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Noted(keras.layers.Layer):
        def __init__(self, hardware, **kwargs):
            super().__init__(**kwargs)
            self.hardware = hardware

        def call(self, inputs):
            return inputs * self.hardware.weight_bits

        def get_config(self):
            return {**super().get_config(), "hardware": keras.saving.serialize_keras_object(self.hardware)}

        @classmethod
        def from_config(cls, config):
            return cls(keras.saving.deserialize_keras_object(config.pop("hardware")), **config)

    keras.Sequential([keras.Input((2,)), Noted(EVERYTHING)]).save(tmp_path / "noted.keras")
    assert ax.load_model(tmp_path / "noted.keras").layers[0].hardware == EVERYTHING


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Networks as files, with an input and the outputs they had: {name: (model, outputs)}."""
    folder, models = tmp_path_factory.mktemp("saved"), {}
    models["converted"] = classifier()
    models["sensitivity"] = ax.with_sensitivity(classifier(), ax.OutputSensitivity(0.1, every=2, layers=["dense*"]))
    models["bit_errors"] = ax.with_bit_errors(classifier(), clip_norm=0.3, start_loss=2.0)
    models["calibrated"] = classifier(ax.Hardware(multiplier=CIRCUIT), fidelity="calibrated", rank=2)
    kept, rng = {}, np.random.default_rng(0)
    for name, model in models.items():
        ax.set_chip(model, 7)
        if name in ("sensitivity", "bit_errors"):  # trained, so that what they count and draw has moved
            model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)  # a few steps: tracing takes longer
            model.fit(rng.normal(size=(24, 8)), np.zeros((24, 3)), batch_size=8, verbose=0)
        x = rng.normal(size=(5, *model.input_shape[1:])).astype(np.float32)
        model.save(folder / f"{name}.keras")
        np.save(folder / f"{name}.npy", x)
        kept[name] = (model, np.asarray(model(x)))  # the statistical noise of the one fidelity is drawn after saving
    return folder, kept


def test_whole_networks_come_back_in_a_fresh_process(saved):
    folder, kept = saved
    code = (
        "import keras, axtrain, sys, pathlib, json, numpy as np\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*.keras'):\n"
        "    model = keras.saving.load_model(path)\n"
        "    x = np.load(path.with_suffix('.npy'))\n"
        "    losses = [float(loss) for loss in model.losses]\n"
        "    np.save(path.with_suffix('.fresh.npy'), model(x))\n"
        "    path.with_suffix('.json').write_text(json.dumps([type(model).__name__, losses]))\n"
    )
    done = fresh.run(code, folder)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, (model, outputs) in kept.items():
        np.testing.assert_array_equal(np.load(folder / f"{name}.fresh.npy"), outputs, err_msg=name)
        kind, losses = json.loads((folder / f"{name}.json").read_text())
        assert kind == type(model).__name__
        assert losses == pytest.approx([float(loss) for loss in model.losses], rel=1e-6)


def test_the_settings_of_training_come_back(saved):
    folder, kept = saved
    again = {name: ax.load_model(folder / f"{name}.keras") for name in ("sensitivity", "bit_errors")}
    assert again["sensitivity"].penalty == kept["sensitivity"][0].penalty
    assert (again["bit_errors"].clip_norm, again["bit_errors"].start_loss) == (0.3, 2.0)
    x, y = np.random.default_rng(5).normal(size=(16, 8)), np.zeros((16, 3))
    for name, loaded in again.items():  # optimizer, probes and noise streams go on where they stood
        own, other = (m.fit(x, y, batch_size=8, shuffle=False, verbose=0).history for m in (kept[name][0], loaded))
        assert {key: pytest.approx(value, rel=1e-6) for key, value in own.items()} == other, name
