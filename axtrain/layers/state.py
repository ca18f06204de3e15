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
    quantise_weights,
    straight_through,
    symmetric_scale,
)
from axtrain.registration import register

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
        self.chip_seed = ChipSeed(seed=0)
        self.stream = keras.random.SeedGenerator(seed=0)
        self.noise = NoiseStream(seed=0)
        self.observer: Observer | None = None
        self.trains_on_chip = False  # static; axtrain.set_chip sets it

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
        if self.hardware.activations == "symmetric":
            return Quantiser(
                ops.stop_gradient(symmetric_scale(low, high, code_high)), ops.zeros(()), code_low, code_high
            )
        scale, zero_point = affine_parameters(low, high, code_low, code_high)
        return Quantiser(ops.stop_gradient(scale), ops.stop_gradient(zero_point), code_low, code_high)

    def _moving_range(self, x, training: bool):
        batch_low, batch_high = ops.min(x), ops.max(x)
        momentum = self.hardware.quantisation.momentum
        seen = self.seen.value > 0
        if not training:
            return ops.where(seen, self.low.value, batch_low), ops.where(seen, self.high.value, batch_high)
        kept = ops.where(seen, momentum, 0.0)
        self.low.assign(kept * self.low.value + (1 - kept) * batch_low)
        self.high.assign(kept * self.high.value + (1 - kept) * batch_high)
        self.seen.assign(ops.full((), _SEEN))
        return self.low.value, self.high.value

    def read_weights(self, kernel, axes: tuple[int, ...], training: bool) -> Codes:
        """Weight codes as the memory returns them; the gradient passes to the clean kernel.

        In training, faults that belong to a chip are drawn anew at each step, so that the weights learn to
        live on any chip, unless `trains_on_chip`; in inference they are those of the chip set by
        `axtrain.set_chip`.
        """
        weights = quantise_weights(kernel, self.hardware.weight_bits, axes)
        memory = self.hardware.weight_memory
        if memory is None:
            return weights
        of_chip = memory.per_chip and (self.trains_on_chip or not training)
        seed = self.chip_seed if of_chip else self.stream
        codes = memory.read(weights.codes, self.hardware.weight_bits, seed, strength=self.noise_strength.value)
        codes = ops.cast(codes, "float32")
        return Codes(codes, straight_through(weights.real, codes * weights.scale), weights.scale, weights.zero_point)

    def calibrate(self, samples: np.ndarray, kernel, axes: tuple[int, ...]) -> None:
        """Sets the activation range and keeps the operands' distributions, to which an error model is fitted.

        Args:
            samples: of the layer's input.
            kernel: the weights.
            axes: those of the kernel that are summed over.

        Raises:
            ValueError: samples or a kernel that are not finite.
        """
        if not np.isfinite(ops.convert_to_numpy(kernel)).all():
            raise ValueError("Its kernel is not finite; load or train the weights again. Received: NaN or infinity")
        quantisation = self.hardware.quantisation
        method = "minmax" if quantisation.activation_range == "moving_average" else quantisation.activation_range
        symmetric = self.hardware.activations == "symmetric"
        low, high = calibrated_range(samples, method=method, percentile=quantisation.percentile, symmetric=symmetric)
        self.set_range(low, high)
        activations = self.quantise_activations(ops.convert_to_tensor(samples), training=False)
        weights = quantise_weights(ops.convert_to_tensor(kernel), self.hardware.weight_bits, axes)
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
        for variable in self._own_variables():
            store[variable.name] = ops.convert_to_numpy(variable)
        for name, generator in self.generators.items():
            store[name] = ops.convert_to_numpy(generator.state)
        store["trains_on_chip"] = np.array(self.trains_on_chip)
        if self.windows is not None:
            store["windows"] = self.windows
            store["sample_shape"] = np.array(self.sample_shape, np.int64)

    def load_own_variables(self, store) -> None:
        """Reads what `save_own_variables` wrote."""
        saved = store.keys()
        self._change_rank(len(store["activation_factors"]) if "activation_factors" in saved else 0)
        for variable in self._own_variables():
            variable.assign(store[variable.name])
        for name, generator in self.generators.items():
            generator.state.assign(store[name])
        self.trains_on_chip = bool(np.asarray(store["trains_on_chip"])) if "trains_on_chip" in saved else False
        if "windows" in saved:
            self.windows = np.asarray(store["windows"])
            self.sample_shape = tuple(int(size) for size in store["sample_shape"])

    @property
    def generators(self) -> dict[str, keras.random.SeedGenerator]:
        """Every seed: the chip's cells, the stream of a memory's random faults, the noise of activations."""
        return {"chip_seed": self.chip_seed, "stream": self.stream, "noise": self.noise}

    def _own_variables(self):
        return self._non_trainable_variables

    def get_config(self):
        """The hardware as plain data."""
        return {"name": self.name, "hardware": self.hardware.to_dict(), "calibrated": self.calibrated}

    @classmethod
    def from_config(cls, config):
        """Rebuilds the layer."""
        return cls(hardware=Hardware.from_dict(config.pop("hardware")), **config)
