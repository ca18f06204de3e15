"""The child layer that holds what a layer's hardware needs: ranges, chip seeds, noise strength, error model.

It is a layer of its own because Dense and Conv save only their kernel and bias, and because its numbers
must stay float32 whatever the dtype policy says.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from axtrain.hardware import Hardware
from axtrain.layers.chip import ChipSeed, NoiseStream
from axtrain.layers.error_model import FittedState
from axtrain.layers.statistics import Observer
from axtrain.quantisers import (
    Codes,
    Quantiser,
    affine_parameters,
    calibrated_range,
    finite_samples,
    quantise_weights,
    straight_through,
    symmetric_scale,
)
from axtrain.registration import register

# Which part of a chip a product's numbers are drawn for, so that its cells differ.
_WEIGHTS, _ACTIVATIONS, _BIASES = range(3)
# Where a moving average meets its first batch, the batch's own range is taken whole.
_UNSEEN, _SEEN = 0.0, 1.0


@register("HardwareState")
class HardwareState(FittedState):
    """Quantises activations, reads weights from their memory, and keeps the state of both.

    Args:
        hardware: the description.
        calibrated: whether the range comes from calibration data. Until then it follows the batches.
        rank: ordinary products that play the error's systematic part, where the fidelity has them.
        kwargs: as for `keras.layers.Layer`.
    """

    def __init__(self, hardware: Hardware, calibrated: bool = False, rank: int = 0, **kwargs) -> None:
        super().__init__(autocast=False, dtype="float32", **kwargs)
        self.hardware = hardware
        self.calibrated = calibrated
        self.rank = rank
        # Named, since TensorFlow prepares an operation for each new name of a variable.
        self.chip_seed = ChipSeed(seed=0, name="chip_seed")
        self.stream = keras.random.SeedGenerator(seed=0, name="stream")
        self.noise = NoiseStream(seed=0, name="noise")
        self.observer: Observer | None = None
        self.trains_on_chip = False  # static; axtrain.set_chip sets it
        self.address = self.bias_address = 0  # static: where in their memories its words begin

    def build(self, input_shape=None) -> None:
        """Makes the variables; the shapes depend on the hardware alone."""
        self._add_variables({"low": (), "high": (), "seen": (), "noise_strength": ()})
        self.noise_strength.assign(1.0)
        self._build_error_model()
        self.built = True

    @property
    def follows_batches(self) -> bool:
        """Whether the activation range is a moving average of the batches' own; static."""
        return not self.calibrated or self.hardware.quantisation.activation_range == "moving_average"

    def quantise_activations(self, x, training: bool) -> Codes:
        """Codes of a float32 tensor of any shape, under the calibrated (or moving) range."""
        return self.activation_quantiser(x, training)(x)

    def activation_quantiser(self, x, training: bool) -> Quantiser:
        """The quantiser of a float32 tensor; in training a moving range takes the tensor in."""
        low, high = self._moving_range(x, training) if self.follows_batches else (self.low.value, self.high.value)
        code_low, code_high = self.hardware.activation_codes
        bounds, symmetric = (ops.stop_gradient(low), ops.stop_gradient(high)), self.hardware.activations == "symmetric"
        if symmetric:
            scale, zero_point = symmetric_scale(*bounds, code_high), ops.zeros(())
        else:
            scale, zero_point = affine_parameters(*bounds, code_low, code_high)
        return Quantiser(scale, zero_point, code_low, code_high, bounds, symmetric)

    def _moving_range(self, x, training: bool):
        batch_low, batch_high = ops.min(x), ops.max(x)
        momentum = self.hardware.quantisation.momentum
        seen = self.seen.value > 0
        if not training:
            return ops.where(seen, self.low.value, batch_low), ops.where(seen, self.high.value, batch_high)
        kept = ops.where(seen, momentum, 0.0)
        low = kept * self.low.value + (1 - kept) * batch_low
        high = kept * self.high.value + (1 - kept) * batch_high
        # NaN would stay in the range for good; the sums that the bad samples enter are NaN all the same.
        moves = ops.isfinite(high - low)
        self.low.assign(ops.where(moves, low, self.low.value))
        self.high.assign(ops.where(moves, high, self.high.value))
        self.seen.assign(ops.where(moves, _SEEN, self.seen.value))
        known = ops.logical_or(moves, seen)
        return ops.where(known, self.low.value, low), ops.where(known, self.high.value, high)

    def read_weights(self, kernel, axes: tuple[int, ...], training: bool) -> Codes:
        """Weight codes as the memory returns them; the gradient passes to the clean kernel.

        In training, faults that belong to a chip are drawn anew at each step, so that the weights learn to
        live on any chip, unless `trains_on_chip`; in inference they are those of the chip set by
        `axtrain.set_chip`.
        """
        weights = self.hardware.weight_codes(kernel, axes)
        memory = self.hardware.weight_memory
        if memory is None:
            return weights
        codes = self._read(memory, weights.codes, self.hardware.weight_bits, _WEIGHTS, training, address=self.address)
        return Codes(codes, straight_through(weights.real, codes * weights.scale), weights.scale, weights.zero_point)

    def read_activations(self, inputs, quantiser: Quantiser, training: bool):
        """Inputs as they come back from their memory, real values, and the quantiser of these.

        Each sample lies at the same addresses in its turn. The gradient is that of the quantiser.
        """
        memory = self.hardware.activation_store
        if memory is None:
            return inputs, quantiser
        codes = ops.stop_gradient(quantiser.codes(inputs))
        read = self._read(memory, codes, self.hardware.activation_bits, _ACTIVATIONS, training, batched=True)
        low, high = self.hardware.read_activation_codes
        return quantiser.real(inputs, read), quantiser._replace(code_low=low, code_high=high, bounds=None)

    def read_bias(self, bias, training: bool):
        """A bias as it comes back from its memory, float32: ``s round(b / s)`` before the faults, s from its largest.

        The gradient passes to the clean bias.
        """
        memory = self.hardware.bias_memory
        if memory is None or bias is None or self.observer is not None:
            return bias
        bits = self.hardware.quantisation.bias_bits
        held = quantise_weights(bias, bits, tuple(range(len(bias.shape))))
        codes = self._read(memory, held.codes, bits, _BIASES, training, address=self.bias_address)
        scale = ops.where(ops.max(ops.abs(held.codes)) > 0, held.scale, 0.0)  # no bias at all needs no words
        return straight_through(held.real, ops.reshape(codes * scale, ops.shape(bias)))

    def failing(self, sums, squares):
        """Accumulators as the datapath gives them, int32; what misses the clock is new at every pass.

        Args:
            sums: int32, after the exact zero-point correction.
            squares: a function of nothing to the sums of the squared products, float32.
        """
        datapath = self.hardware.datapath
        if datapath is None:
            return sums
        squared = squares() if datapath.needs_squares else None
        return datapath.apply(sums, self.noise, strength=self.noise_strength.value, squares=squared)

    def _read(self, memory, codes, bits: int, part: int, training: bool, **options):
        """Codes as a memory returns them, float32. In training a chip's faults are a new chip's at each step."""
        of_chip = memory.per_chip and (self.trains_on_chip or not training)
        # What changes from read to read differs between replicas, but for weights, which are shared.
        changing = self.noise if part == _ACTIVATIONS else self.stream
        seed = (self.chip_seed if of_chip else changing).next()
        words = ops.cast(seed, "uint32") + ops.convert_to_tensor(np.array([0, part], np.uint32))
        codes = ops.cast(codes, "int32")  # a quantiser's, so whole: they need no look at each
        read = memory.read(codes, bits, words, strength=self.noise_strength.value, **options)
        return ops.cast(read, "float32")

    def calibrate(
        self, samples: np.ndarray, kernel, axes: tuple[int, ...], bounds: tuple[float, float] | None = None
    ) -> None:
        """Sets the activation range and keeps the operands' distributions, to which an error model is fitted.

        Args:
            samples: of the layer's input.
            kernel: the weights.
            axes: those of the kernel that are summed over.
            bounds: a range that is known; `None` takes it from the samples.

        Raises:
            ValueError: samples or a kernel that are not finite, or samples with outliers (`calibrated_range`).
        """
        if not np.isfinite(ops.convert_to_numpy(kernel)).all():
            raise ValueError("Its kernel is not finite; load or train the weights again. Received: NaN or infinity")
        quantisation = self.hardware.quantisation
        method = "minmax" if quantisation.activation_range == "moving_average" else quantisation.activation_range
        symmetric = self.hardware.activations == "symmetric"
        samples = finite_samples(samples)
        if bounds is None:
            bounds = calibrated_range(samples, method=method, percentile=quantisation.percentile, symmetric=symmetric)
        self.set_range(*bounds)
        activations = self.quantise_activations(ops.convert_to_tensor(samples), training=False)
        weights = self.hardware.weight_codes(ops.convert_to_tensor(kernel), axes)
        self._keep_distributions(ops.convert_to_numpy(activations.codes), ops.convert_to_numpy(weights.codes))
        self.fit(None, None, rank=self.rank, shape="normal")

    def set_range(self, low: float, high: float) -> None:
        """Fixes the activation range (or, for a moving average, where it starts)."""
        self.low.assign(low)
        self.high.assign(high)
        self.seen.assign(_SEEN)
        self.calibrated = True

    def save_own_variables(self, store) -> None:
        """Variables by name, and the seeds' states, which Keras would leave out."""
        for variable in self.own_variables:
            store[variable.name] = ops.convert_to_numpy(variable)
        for name, generator in self.generators.items():
            store[name] = ops.convert_to_numpy(generator.state)
        store["layout"] = np.array([self.trains_on_chip, self.address, self.bias_address], np.int64)
        if self.windows is not None:
            store["windows"] = self.windows
            store["sample_shape"] = np.array(self.sample_shape, np.int64)

    def load_own_variables(self, store) -> None:
        """Reads what `save_own_variables` wrote."""
        saved = store.keys()
        self._change_rank(len(store["activation_factors"]) if "activation_factors" in saved else 0)
        for variable in self.own_variables:
            variable.assign(store[variable.name])
        for name, generator in self.generators.items():
            generator.state.assign(store[name])
        if "layout" in saved:
            trains_on_chip, self.address, self.bias_address = np.asarray(store["layout"]).tolist()
            self.trains_on_chip = bool(trains_on_chip)
        if "windows" in saved:
            self.windows = np.asarray(store["windows"])
            self.sample_shape = tuple(int(size) for size in store["sample_shape"])

    @property
    def generators(self) -> dict[str, keras.random.SeedGenerator]:
        """Every seed: the chip's cells, the stream of a memory's random faults, the noise of activations."""
        return {"chip_seed": self.chip_seed, "stream": self.stream, "noise": self.noise}

    @property
    def own_variables(self) -> list:
        """Every variable of its own but the seeds': range, noise strength and error model."""
        return self._non_trainable_variables

    def no_weights(self, statistical: bool) -> list:
        """Those of them that the layer does not compute with, and the strength, which a schedule moves.

        Args:
            statistical: whether the layer's fidelity plays the error model.
        """
        if statistical:
            return [self.noise_strength]
        return [variable for variable in self.own_variables if variable.name not in ("low", "high", "seen")]

    def get_config(self):
        """The hardware as plain data."""
        described = {"hardware": self.hardware.to_dict(), "calibrated": self.calibrated, "rank": self.rank}
        return {"name": self.name, **described}

    @classmethod
    def from_config(cls, config):
        """Rebuilds the layer."""
        return cls(**{**config, "hardware": Hardware.from_dict(config["hardware"])})
