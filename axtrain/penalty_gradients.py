"""One training step's gradient with a penalty in it: exactly, or from a second pass at moved weights.

R2 = (1/B) sum s^2 v^2 and R1 = 1/2 sum s^2 v^2 are made of a gradient v, and their own gradients are Hessian-vector
products ``H q`` with ``q = s^2 v`` (Pearlmutter 1994). `exact_gradients` differentiates twice.
`first_order_gradients` takes ``H q = (v(w + e q) - v(w)) / e``; the loss's gradient comes from the moved weights too
where that saves a pass, as in sharpness-aware minimisation (Foret 2021). A step is then two passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from axtrain.penalties import Penalty
from axtrain.step_passes import Passes
from axtrain.weight_noise import NoisyWeight

# Where a gradient is 0 everywhere there is no direction to move along; the division stays finite.
_TINY = 1e-20


@dataclass(frozen=True, eq=False)
class PenalisedLoss:
    """A step's loss and the penalty on it.

    Attributes:
        passes: over the batch.
        penalty: what is penalised.
        noisy: the weights that count, and how noisy they are.
        strength: scalar tensor that the penalty is multiplied by.
        signs: a function of a shape to new random signs, float32.
        scaled: what the optimizer multiplies a loss by for half precision, as a function.
        replicas: of `tf.distribute`; each has a part of the loss, whose gradients are added up.
    """

    passes: Passes
    penalty: Penalty
    noisy: Sequence[NoisyWeight]
    strength: Any
    signs: Callable[[Any], Any]
    scaled: Callable[[Any], Any]
    replicas: int = 1

    def gradients(self) -> tuple[list, Any, Any, Any]:
        """Of the scaled loss with the penalty.

        Returns:
            (gradients for `passes.variables`, outputs, loss, value of the penalty before `strength`).
        """
        return self.penalty.gradients(self)

    def exactly(self):
        """The same four, of any penalty here, by differentiating as often as it takes."""
        bends, picked = self.penalty.bends, [noisy.variable.value for noisy in self.noisy]
        with tf.GradientTape() as tape:
            with tf.GradientTape(persistent=True) if bends else nullcontext() as second:
                with tf.GradientTape(persistent=True) as first:
                    outputs, loss = self.passes.whole()
                    seen = (outputs, loss) if self.penalty.fraction == 1 else self.passes.again()
                    sources = self._sources(*seen)
                slopes = [_gradients(first, source, picked) for source in sources]
                along = [(z, _dot(z, slope)) for slope in slopes for z in [self._noise()]] if bends else []
            if bends:
                values = [0.5 * _dot(z, _gradients(second, rise, picked)) for z, rise in along]
            else:
                values = [self._share(seen[0]) * self._squares(slope) for slope in slopes]
            value = sum(values) / len(values)
            total = self.scaled(loss + self.strength / self.replicas * value)
        return tape.gradient(total, self._own), outputs, loss, value

    def output_sensitivity(self):
        """The same four, of R2 to first order."""
        passes, penalty = self.passes, self.penalty
        with tf.GradientTape(persistent=True) as tape:
            outputs, loss = passes.whole()
            seen = outputs if penalty.fraction == 1 else passes.again()[0]
            probes = [self._signs_like(seen) for _ in range(penalty.probes)]
            probed = [_dot(probe, keras.tree.flatten(seen)) for probe in probes]
            scaled_loss = self.scaled(loss)
        total = [0.0] * len(passes.variables) if penalty.fraction == 1 else _gradients(tape, scaled_loss, self._own)
        value, weight = 0.0, 2 * self.strength * self._share(seen) / self.replicas / penalty.probes
        for number, (probe, source) in enumerate(zip(probes, probed, strict=True)):
            slopes = _gradients(tape, source, self._own)
            value += self._share(seen) * self._squares(self._picked(slopes)) / penalty.probes
            size, moved = self._moved([s * v for s, v in zip(self._variance, self._picked(slopes), strict=True)])
            with tf.GradientTape() as there:
                there.watch(moved)
                outputs_there, loss_there = passes.again(moved)
                aim = weight / size * _dot(probe, keras.tree.flatten(outputs_there))
                if penalty.fraction == 1 and number == 0:
                    aim = aim + loss_there
                aim = self.scaled(aim)
            factor = self.scaled(weight / size)
            for index, (here, beyond) in enumerate(zip(slopes, _gradients(there, aim, moved), strict=True)):
                total[index] += beyond - factor * here
        return total, outputs, loss, value

    def loss_gradient(self):
        """The same four, of R1 to first order."""
        (total, part), outputs, loss = self._loss_slopes()
        slopes = [slope * self.replicas for slope in self._picked(part)]
        size, moved = self._moved([s * v for s, v in zip(self._variance, slopes, strict=True)])
        bent = zip(self._loss_slopes_at(moved), part, strict=True)
        bent = [self.strength / size * (beyond - here) for beyond, here in bent]
        return self._with(total, bent), outputs, loss, 0.5 * self._squares(slopes)

    def curvature(self):
        """The same four, of R3 to first order."""
        (total, part), outputs, loss = self._loss_slopes()
        value = 0.0
        for _ in range(self.penalty.probes):
            direction = self._noise()
            size, forward = self._moved(direction)
            _, backward = self._moved([-part for part in direction])
            forward, backward = self._loss_slopes_at(forward), self._loss_slopes_at(backward)
            rise = [(a - b) * (self.replicas / 2 / size) for a, b in zip(forward, backward, strict=True)]
            value += 0.5 * _dot(direction, self._picked(rise)) / self.penalty.probes
            weight = 0.5 * self.strength / self.penalty.probes / size**2
            bent = [weight * (a + b - 2 * here) for a, b, here in zip(forward, backward, part, strict=True)]
            total = self._with(total, bent)
        return total, outputs, loss, value

    def _loss_slopes(self):
        """((scaled gradients of the batch, gradients of the part), outputs, loss)."""
        with tf.GradientTape() as tape:
            outputs, loss = self.passes.whole()
            scaled_loss = self.scaled(loss)
        total, factor = _gradients(tape, scaled_loss, self._own), self.scaled(ops.ones(()))
        if self.penalty.fraction == 1:
            return (total, [slope / factor for slope in total]), outputs, loss
        return (total, self._loss_slopes_at(self._own)), outputs, loss

    def _loss_slopes_at(self, values) -> list:
        values = [tf.convert_to_tensor(value) for value in values]
        with tf.GradientTape() as tape:
            tape.watch(values)
            _, loss = self.passes.again(values)
            scaled_loss = self.scaled(loss)
        factor = self.scaled(ops.ones(()))
        return [slope / factor for slope in _gradients(tape, scaled_loss, values)]

    def _with(self, total: list, more: list) -> list:
        """Gradients of the scaled loss, and those of something not scaled."""
        factor = self.scaled(ops.ones(()))
        return [a + factor * b for a, b in zip(total, more, strict=True)]

    def _moved(self, direction: list) -> tuple[Any, list]:
        """How far the noisy weights are moved along a direction, and all variables' values there."""
        values = [tf.convert_to_tensor(value) for value in self._own]
        norm = ops.sqrt(_dot(self._picked(values), self._picked(values)))
        size = self.penalty.radius * norm / ops.maximum(ops.sqrt(_dot(direction, direction)), _TINY)
        size = ops.maximum(size, _TINY)
        for index, along in zip(self._places, direction, strict=True):
            values[index] = values[index] + size * along
        return size, values

    def _sources(self, outputs, loss) -> list:
        """What is differentiated first: probed outputs, or the loss, once for each probe."""
        if not self.penalty.of_outputs:
            return [loss * self.replicas] * self.penalty.probes
        flat = keras.tree.flatten(outputs)
        return [_dot(self._signs_like(outputs), flat) for _ in range(self.penalty.probes)]

    def _share(self, outputs) -> Any:
        """What a sum of squared slopes is multiplied by: 1/B of the outputs', 1/2 of the loss's."""
        if not self.penalty.of_outputs:
            return 0.5
        return 1 / ops.cast(ops.shape(keras.tree.flatten(outputs)[0])[0], "float32")

    def _squares(self, slopes: list) -> Any:
        return sum(ops.sum(s * ops.square(v)) for s, v in zip(self._variance, slopes, strict=True))

    def _noise(self) -> list:
        """A random sign for each noisy weight, times s."""
        return [ops.sqrt(s) * self.signs(ops.shape(s)) for s in self._variance]

    def _signs_like(self, outputs) -> list:
        return [self.signs(ops.shape(output)) for output in keras.tree.flatten(outputs)]

    def _picked(self, values: list) -> list:
        return [values[index] for index in self._places]

    @cached_property
    def _variance(self) -> list:
        return [noisy.variance(noisy.variable.value) for noisy in self.noisy]

    @cached_property
    def _places(self) -> list[int]:
        places = {id(variable): index for index, variable in enumerate(self.passes.variables)}
        return [places[id(noisy.variable)] for noisy in self.noisy]

    @property
    def _own(self) -> list:
        return [variable.value for variable in self.passes.variables]


def _gradients(tape, source, values: list) -> list:
    return tape.gradient(source, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _dot(first: list, second: list) -> Any:
    return sum(ops.sum(a * ops.cast(b, "float32")) for a, b in zip(first, second, strict=True))
