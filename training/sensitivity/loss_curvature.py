"""The mean loss of a float network over data: at moved weights, and how it curves along each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from axtrain.running_state import state_kept

METHODS = ("gauss_newton", "hessian")


@dataclass(frozen=True, eq=False)
class Curvature:
    """How the mean loss curves.

    Attributes:
        weights: for each kernel ``d2L / dw_i^2``, float32 of its shape.
        errors: the standard error of each, over the probes.
        outputs: for each kernel C, float32 (channels,): ``d2L / dy^2`` along one output of the channel, summed over
            its positions, mean over samples; `None` where it is not known.
    """

    weights: list[np.ndarray]
    errors: list[np.ndarray]
    outputs: list[np.ndarray | None]


class _Tap:
    """In the place of a layer's activation: sees what comes, and adds to it."""

    def __init__(self, activation: Callable | None) -> None:
        self.activation = activation
        self.seen: list[Any] = []
        self.added: Any = None

    def __call__(self, value):
        if self.added is not None:
            value = value + self.added
        self.seen.append(value)
        return value if self.activation is None else self.activation(value)


class LossSurface:
    """Mean loss over the data as a function of kernels and of biases on the outputs, in inference.

    Args:
        network: plain; this object's own, since its activations are replaced.
        kernels: `axtrain.training.sensitivity.prediction.Kernel`s of it.
        loss: from `axtrain.training.sensitivity.loss_choice.chosen_loss`.
        x, y: the data.
        batch_size: samples per pass.
    """

    def __init__(self, network: keras.Model, kernels: Sequence, loss, x, y, batch_size: int) -> None:
        self.network, self.kernels, self.loss = network, kernels, loss
        self.data, self.batch_size = (x, y), batch_size
        self.count = len(y)
        self._taps = []
        for kernel in kernels:
            tap = None if kernel.owner is None else _Tap(kernel.owner.activation)
            if tap is not None:
                kernel.owner.activation = tap
            self._taps.append(tap)
        self._moved_loss = tf.function(self._moved, reduce_retracing=True)
        self._probe = tf.function(self._squares, reduce_retracing=True)
        self._product = tf.function(self._hessian_product, reduce_retracing=True)

    def at(self, moved: dict[int, Any] | None = None, biases: dict[int, Any] | None = None) -> float:
        """The mean loss with some kernels moved and biases added, by the kernel's number.

        Args:
            moved: by how much, arrays of the kernels' shapes.
            biases: arrays (channels,); only where the outputs can be reached.
        """
        moved, biases = moved or {}, biases or {}
        shifts = [
            tf.convert_to_tensor(moved.get(index, np.zeros(kernel.variable.shape, np.float32)))
            for index, kernel in enumerate(self.kernels)
        ]
        added = [
            tf.convert_to_tensor(np.asarray(biases.get(index, np.zeros(kernel.channels)), np.float32))
            for index, kernel in enumerate(self.kernels)
        ]
        total = sum(float(self._moved_loss(x, y, shifts, added)) for x, y in self._batches())
        return total / self.count

    def curvature(self, probes: int, seed: int, method: str) -> Curvature:
        """Of the loss along every weight, and along the outputs for `"gauss_newton"`.

        `"hessian"`: Hutchinson's ``E_z z * (H z)``, z random signs of all kernels at once, ``H z`` by differentiating
        twice (theory page, section 7). `"gauss_newton"`: ``E_r (du/dw_i)^2`` with ``u = sum_bk r_bk f_bk``, r random
        signs of every sample and output, f as the loss's `roots`: the Gauss-Newton diagonal (Martens 2020), never
        negative, and equal to the Hessian's where the network is piecewise linear in a layer's weights, as with ReLU
        (derived).
        """
        sums = [np.zeros(kernel.variable.shape, np.float64) for kernel in self.kernels]
        squares = [np.zeros_like(one) for one in sums]
        outputs: list[Any] = [None] * len(self.kernels)
        for probe in range(probes):
            rng = np.random.default_rng([seed, probe])
            with state_kept(self.network):
                found, along = self._probed_hessian(rng) if method == "hessian" else self._probed_squares(rng)
            for index, value in enumerate(found):
                sums[index] += value
                squares[index] += value**2
                if along[index] is not None:
                    outputs[index] = along[index] / probes + (0 if outputs[index] is None else outputs[index])
        means = [total / probes for total in sums]
        spread = [
            np.sqrt(np.maximum(square / probes - mean**2, 0) / max(probes - 1, 1))
            for square, mean in zip(squares, means, strict=True)
        ]
        return Curvature([mean.astype(np.float32) for mean in means], spread, outputs)

    def _probed_hessian(self, rng):
        signs = [_signs(rng, kernel.variable.shape) for kernel in self.kernels]
        total = [np.zeros(one.shape, np.float64) for one in signs]
        for x, y in self._batches():
            for sum_, part in zip(total, self._product(x, y, signs), strict=True):
                sum_ += part.numpy()
        found = [one * sign / self.count for one, sign in zip(total, signs, strict=True)]
        return found, [None] * len(found)

    def _probed_squares(self, rng):
        found: list[Any] = [0.0] * len(self.kernels)
        along: list[Any] = [None] * len(self.kernels)
        for x, y in self._batches():
            signs = _signs(rng, (len(y), self.loss.width(self.network)))
            weights, outputs = self._probe(x, signs)
            for index in range(len(self.kernels)):
                found[index] = found[index] + weights[index].numpy().astype(np.float64) / self.count
                if self._taps[index] is not None:
                    part = outputs[index].numpy().astype(np.float64) / self.count
                    along[index] = part if along[index] is None else along[index] + part
        return found, along

    def _batches(self) -> Iterator[tuple[Any, Any]]:
        x, y = self.data
        for start in range(0, self.count, self.batch_size):
            stop = start + self.batch_size
            yield (
                keras.tree.map_structure(lambda a, i=start, j=stop: tf.convert_to_tensor(np.asarray(a[i:j])), x),
                tf.convert_to_tensor(np.asarray(y[start:stop])),
            )

    def _values(self):
        return [kernel.variable.value for kernel in self.kernels]

    def _run(self, x, added=None):
        for index, tap in enumerate(self._taps):
            if tap is not None:
                tap.seen, tap.added = [], None if added is None else added[index]
        return self.network(x, training=False)

    def _moved(self, x, y, shifts, added):
        moved = [
            (kernel.variable, kernel.variable.value + shift) for kernel, shift in zip(self.kernels, shifts, strict=True)
        ]
        with keras.StatelessScope(state_mapping=moved):
            outputs = self._run(x, added)
        return ops.sum(self.loss.per_sample(y, outputs))

    def _hessian_product(self, x, y, signs):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                total = ops.sum(self.loss.per_sample(y, self._run(x)))
            slopes = inner.gradient(total, self._values(), unconnected_gradients="zero")
        return outer.gradient(slopes, self._values(), output_gradients=signs, unconnected_gradients="zero")

    def _squares(self, x, signs):
        with tf.GradientTape() as tape:
            outputs = self._run(x)
            probed = ops.sum(self.loss.roots(outputs) * signs)
        seen = [[] if tap is None else tap.seen for tap in self._taps]
        slopes = tape.gradient(probed, [self._values(), seen], unconnected_gradients="zero")
        weights = [ops.square(slope) for slope in slopes[0]]
        along = [
            sum((_per_channel(ops.square(one)) for one in slope), ops.zeros(())) for slope in slopes[1]
        ]  # a layer used twice is seen twice
        return weights, along


def _signs(rng, shape) -> np.ndarray:
    return (2 * rng.integers(0, 2, tuple(shape)) - 1).astype(np.float32)


def _per_channel(values):
    return ops.sum(values, axis=tuple(range(len(values.shape) - 1)))
