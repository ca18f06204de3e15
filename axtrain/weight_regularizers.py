"""Regularisers on single weights: ordinary Keras regularisers that know what the hardware does to each weight code.

Both penalise a weight by the mean square with which the hardware moves it, in squared real weights, so their
strengths compare with that of `keras.regularizers.L2` and with each other (theory page, section 7). A weight becomes a
code as in `axtrain.quantisers.quantise_weights`: ``b = w / D_w``, one scale ``D_w = max |w| / (2^(n-1) - 1)`` for each
output channel. Between two codes the penalty is interpolated linearly, so that it has a gradient.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from keras import ops

from axtrain.code_penalty import CodePenalty
from axtrain.hardware import Hardware
from axtrain.noise_models.memories import BitErrors, memory_from_dict
from axtrain.noise_models.memory import Memory
from axtrain.noise_models.multiplier import Multiplier
from axtrain.registration import register


@register("MultiplierError")
class MultiplierError(CodePenalty):
    """Pulls weights to codes where the multiplier is accurate: ``strength * sum_w D_w^2 Ehat2(w / D_w) / E[a^2]``.

    ``Ehat2(b) = E_a[E(a, b)^2]``, E(a, b) = M[a, b] - a b the table's error over the codes in use (an unsigned circuit
    takes signed weights by sign-magnitude, as in `axtrain.Hardware`). Division by ``E[a^2]``, the mean square of the
    activation codes, makes it the square by which the weight would have to be off for an error of that size, in
    squared weight steps; D_w^2 makes these squared real weights. For activations with a zero point only that constant
    differs from the natural one, ``E[(a - z)^2]``.

    Gradient: ``strength * D_w`` times the difference between the two codes around the weight, over ``E[a^2]``. None
    goes through the scale: it would reward small weights, whose products are no more accurate for their size. Descent
    moves a weight to the better of its two neighbouring codes, so weights gather at codes better than both neighbours.

    Source: theory page, section 7. The interpolation and the unit were chosen here.

    Args:
        multiplier: an `axtrain.Multiplier`; an exact one costs nothing.
        strength: what the sum is multiplied by, >= 0.
        activations: how often each activation code occurs, as counts or shares, in the order of
            ``Hardware(multiplier=multiplier).code_table.activation_codes``; the `activation_histogram` of a calibrated
            layer's `hardware_state` has it. `None` takes all alike.
        axis: the kernel's axes that one output sums over, an int or several; `None` is all but the last, as for
            `Dense` and `Conv`. A depthwise kernel needs ``axis=(0, 1)``, a transposed one ``axis=(0, 1, 3)``.

    Raises:
        TypeError: what is no multiplier.
        ValueError: a bad strength or axis, or a histogram of another length, of negative or infinite numbers, or with
            no activation but 0.

    Examples:
        >>> import keras, axtrain as ax
        >>> pull = ax.MultiplierError(ax.multipliers.get("drum4"), 0.01)
        >>> layer = keras.layers.Dense(8, kernel_regularizer=pull)
        >>> codes, errors = pull.profile()
        >>> [round(float(errors[codes == code][0]), 2) for code in (88, 96, 104, 112)]  # accurate: 88 and 104
        [17.44, 89.49, 24.36, 97.74]
    """

    def __init__(self, multiplier: Multiplier, strength: float, *, activations: Any = None, axis: Any = None) -> None:
        if not isinstance(multiplier, Multiplier):
            raise TypeError(
                "`multiplier` must be an axtrain.Multiplier: use axtrain.multipliers.get(name) or "
                f"axtrain.Multiplier.load(path, signed=...). Received: multiplier={multiplier!r}"
            )
        self.multiplier = multiplier
        table = Hardware(multiplier=multiplier).code_table
        count = len(table.activation_codes)
        share = np.ones(count) if activations is None else ops.convert_to_numpy(activations).astype(np.float64)
        if share.shape != (count,) or not np.isfinite(share).all() or share.min() < 0:
            low, high = table.activation_codes[[0, -1]]
            raise ValueError(
                f"`activations` must be {count} finite numbers >= 0, one for each activation code {low} .. {high}. "
                f"Received: an array of shape {share.shape}, with {np.sum(~(share >= 0))} negative or not numbers"
            )
        self.activations = None if activations is None else share.tolist()
        energy = share @ table.activation_codes**2
        if energy == 0:
            raise ValueError(
                "`activations` must hold an activation other than 0: the errors are measured against them. "
                f"Received: {share.sum():g} at code 0 and none elsewhere"
            )
        super().__init__(share @ table.error**2 / energy, multiplier.weight_bits, strength, axis, False)

    def get_config(self):
        """The arguments, the multiplier as `Multiplier.to_dict` describes it."""
        return {**super().get_config(), "multiplier": self.multiplier.to_dict(), "activations": self.activations}

    @classmethod
    def from_config(cls, config):
        """The regulariser that `get_config` described."""
        return cls(**{**config, "multiplier": Multiplier.from_dict(config["multiplier"])})

    def _title(self) -> str:
        return f"{self.multiplier.name}: error of the products with each weight"


@register("BitFlipEnergy")
class BitFlipEnergy(CodePenalty):
    """The expected square by which failing cells move the weights: ``strength * sum_w E[(w' - w)^2]``.

    ``E[(w' - w)^2] = D_w^2 ((E[b'] - b)^2 + Var b')`` for the code b of w and its read b', from the memory's closed
    forms (`Memory.expected`, `Memory.variance`), linear between codes; mean over reads, or over chips where the faults
    are a chip's own. Cells that fail together move each word as much, so clustering changes nothing.

    Gradient: through the codes, and through the scale, which multiplies everything: ``dP/d(max |w|)`` goes to each
    channel's largest weight. For flips in unprotected two's complement the variance is ``p (1 - p) (4^n - 1) / 3`` for
    every code and the rest, ``p^2 (2 b + 1)^2``, is small: then the penalty is about ``strength K D_w^2`` times that
    for a channel of K weights, and its gradient lies nearly all in the largest weight. So it narrows ranges, gently,
    where `WeightRange` cuts them. In sign-magnitude the error grows with the code; protections make it depend on the
    code too (robust bits a little, by the mean alone). There the other weights are drawn to the codes of smaller error.

    Source: theory page, sections 5 and 7. The interpolation, and that the scale is differentiated, were chosen here.

    Args:
        strength: what the sum is multiplied by, >= 0.
        rate: probability that a bit flips, 0 to 0.5; give this or `memory`.
        memory: where the weights live, from `axtrain.memories`, with its own encoding.
        bits: width of the stored words, 2 to 10.
        encoding: of the words, where a `rate` is given; `None` is two's complement.
        axis: the kernel's axes that one output sums over, an int or several; `None` is all but the last, as for
            `Dense` and `Conv`. A depthwise kernel needs ``axis=(0, 1)``, a transposed one ``axis=(0, 1, 3)``.

    Raises:
        TypeError: what is no memory.
        ValueError: an argument out of range, both or neither of `rate` and `memory`, an unsigned encoding, or a memory
            without a closed form (stuck cells under SECDED).

    Examples:
        >>> import numpy as np, axtrain as ax
        >>> penalty = ax.BitFlipEnergy(1.0, rate=0.01)
        >>> round(float(penalty(np.array([[1.27], [0.0]]))), 5)  # 1e-4 (2 x 216.26 + 1e-4 (255^2 + 1))
        0.0439
    """

    def __init__(
        self,
        strength: float,
        *,
        rate: float | None = None,
        memory: Memory | None = None,
        bits: int = 8,
        encoding: str | None = None,
        axis: Any = None,
    ) -> None:
        if (rate is None) == (memory is None) or (memory is not None and encoding is not None):
            raise ValueError(
                "Give a `rate`, with an `encoding` if it is not two's complement, or a `memory`, which has its own. "
                f"Received: rate={rate!r}, memory={memory!r}, encoding={encoding!r}"
            )
        if rate is not None:
            memory = BitErrors(rate=rate, encoding="twos_complement" if encoding is None else encoding)
        if not isinstance(memory, Memory):
            raise TypeError(
                f"`memory` must be one of axtrain.memories, such as BitErrors(rate=...). Received: memory={memory!r}"
            )
        if memory.encoding == "unsigned":
            raise ValueError(
                "Weight codes are signed and an unsigned word would lose their sign. Use encoding='twos_complement', "
                "'sign_magnitude' or 'offset'. Received: encoding='unsigned'"
            )
        if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 10:
            raise ValueError(f"`bits` must be an int from 2 to 10. Received: bits={bits!r}")
        self.memory = memory
        limit = (1 << (bits - 1)) - 1
        codes = np.arange(-limit, limit + 1)
        alone = replace(memory, clustering=None)
        errors = (alone.expected(codes, bits) - codes) ** 2 + alone.variance(codes, bits)
        super().__init__(errors, bits, strength, axis, True)

    def get_config(self):
        """The arguments, the memory as `Memory.to_dict` describes it."""
        return {**super().get_config(), "memory": self.memory.to_dict(), "bits": self.bits}

    @classmethod
    def from_config(cls, config):
        """The regulariser that `get_config` described."""
        return cls(**{**config, "memory": memory_from_dict(config["memory"])})

    def _title(self) -> str:
        return f"bit error rate {self.memory.rate:.2g}, {self.memory.encoding}: error of each stored weight"
