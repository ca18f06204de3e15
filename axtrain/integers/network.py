"""`IntegerNetwork`: a network in integers alone, as a list of operations that everything exported is written from.

Every tensor between two operations holds int8 codes, ``real = scale * (code - zero_point)``; every sum is an int32.
A product's real multiplier ``M = s_in s_w / s_out`` is an integer and a shift, ``M = factor * 2^(shift - 31)`` with
``2^30 <= factor < 2^31`` (gemmlowp's quantised multiplier, which LiteRT's kernels use; Jacob et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from axtrain.noise_models.multiplier import Multiplier


class Padding(NamedTuple):
    """Rows and columns of the zero-point code around an image; LiteRT's SAME gives the larger share to the end."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


NO_PADDING = Padding()


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """What lies between two operations: int8 codes.

    Attributes:
        name: unique in the network, `LAYER` or `LAYER/PART` by the Keras layer whose output it is.
        shape: without the batch.
        scale: real value of one code step.
        zero_point: the code of real 0, -128 to 127.
    """

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int

    def real(self, codes: np.ndarray) -> np.ndarray:
        """float32 values of codes."""
        return (codes.astype(np.float32) - self.zero_point) * np.float32(self.scale)

    def codes(self, real: Any) -> np.ndarray:
        """int8 codes of real values, ``clip(round(real / scale) + zero_point, -128, 127)``.

        Raises:
            ValueError: values that are not finite, for which no code stands.
        """
        real = np.asarray(real, np.float32)
        bad = real.size - np.count_nonzero(np.isfinite(real))
        if bad:
            raise ValueError(
                f"Values of tensor {self.name!r} must be finite: no int8 code stands for NaN or infinity. Remove those "
                f"samples. Received: {bad} of {real.size} values NaN or infinite"
            )
        return np.clip(np.round(real / np.float32(self.scale)) + self.zero_point, -128, 127).astype(np.int8)


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One step: reads tensors, writes one.

    Attributes:
        name: of the Keras layer it comes from.
        inputs: names of the tensors that it reads.
        output: name of the tensor that it writes.
    """

    name: str
    inputs: tuple[str, ...]
    output: str


PRODUCT_KINDS = ("dense", "conv2d", "depthwise_conv2d")


@dataclass(frozen=True, kw_only=True, eq=False)
class Product(Operation):
    """Dense, convolution or depthwise convolution: integer sums, requantised and clamped.

    ``sum = sum_k (T[a_k, w_kn] - z_a w_kn) + bias_n``, ``code = clamp(z_out + sum * factor_n * 2^(shift_n - 31))``,
    with T the multiplier's table over the codes (`a * w` for the exact one): ``T = table[a + 128, w + 128]``.

    Attributes:
        kind: one of `PRODUCT_KINDS`.
        codes: int8 weights, -127 to 127: (inputs, outputs), (height, width, inputs, outputs), or
            (height, width, channels, multiplier).
        weight_scale: float32, one for each output channel.
        bias: int32, one for each output channel, in units of `s_in * weight_scale`.
        factor, shift: int32 arrays, one for each output channel.
        lowest, highest: the clamp in output codes; a ReLU's lowest is the zero point.
        table: (256, 256) int32 over activation code + 128 and weight code + 128; `None` multiplies exactly. Of a
            circuit M that takes unsigned words u = a + 128 it is ``T = M[u, w] - 128 w``, so that the sum is the same.
        multiplier: the circuit that the table plays, for reports; `None` where exact.
        strides, dilation: (rows, columns).
        padding: of the image.
        roundings: how the sum is multiplied, as LiteRT's kernels do: 2 for convolutions
            (`axtrain.integers.requantisation.multiplied`: half up at 2^-31, then half away from zero at the shift),
            1 for dense products (`multiplied_once`: ``(sum * factor + 2^(30 - shift)) >> (31 - shift)`` in 64 bits,
            saturated at 32).
    """

    kind: str
    codes: np.ndarray
    weight_scale: np.ndarray
    bias: np.ndarray
    factor: np.ndarray
    shift: np.ndarray
    lowest: int = -128
    highest: int = 127
    table: np.ndarray | None = None
    multiplier: Multiplier | None = None
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = NO_PADDING
    roundings: int = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Addition(Operation):
    """Two tensors of one shape, each rescaled to a common scale and added; LiteRT's ADD.

    Both codes, less their zero points, are shifted left by 20, multiplied by `factors[i], shifts[i]`
    (``s_i / (2 max(s_0, s_1))``), summed, and the sum by `factor, shift` (``2 max(s_0, s_1) / (2^20 s_out)``).

    Attributes:
        factors, shifts: of the two inputs.
        factor, shift: of the sum.
        lowest, highest: the clamp in output codes.
    """

    factors: tuple[int, int]
    shifts: tuple[int, int]
    factor: int
    shift: int
    lowest: int = -128
    highest: int = 127


@dataclass(frozen=True, kw_only=True, eq=False)
class Pooling(Operation):
    """Largest or mean code of each window; input and output share scale and zero point.

    The mean is of the codes inside the image alone, rounded half away from zero.

    Attributes:
        kind: `"max"` or `"average"`; a global average has the whole image as window.
        window, strides: (rows, columns).
        padding: of the image.
        lowest, highest: the clamp in output codes.
    """

    kind: str
    window: tuple[int, int]
    strides: tuple[int, int]
    padding: Padding = NO_PADDING
    lowest: int = -128
    highest: int = 127


@dataclass(frozen=True, kw_only=True, eq=False)
class Reshape(Operation):
    """The same codes in another shape; flattening too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pad(Operation):
    """Rows and columns of the zero point around an image (a `ZeroPadding2D`)."""

    padding: Padding


@dataclass(frozen=True, kw_only=True, eq=False)
class Rescale(Operation):
    """The same real values in other codes, clamped: a ReLU that nothing before it could take in, or a new range.

    Attributes:
        factor, shift: of ``s_in / s_out``.
        lowest, highest: the clamp in output codes.
    """

    factor: int
    shift: int
    lowest: int = -128
    highest: int = 127


@dataclass(frozen=True, kw_only=True, eq=False)
class Softmax(Operation):
    """Softmax over the last axis, in LiteRT's fixed-point arithmetic; output scale 1/256, zero point -128."""


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerNetwork:
    """A network in integers alone.

    Attributes:
        name: of the model.
        tensors: all of them by name.
        operations: in an order in which each finds its inputs made.
        input: name of the tensor that the network reads.
        output: name of the tensor that it gives.
    """

    name: str
    tensors: dict[str, Tensor]
    operations: tuple[Operation, ...]
    input: str
    output: str

    def quantised(self, x: np.ndarray) -> np.ndarray:
        """int8 codes of real inputs of shape (batch, *input shape).

        Raises:
            ValueError: inputs that are not finite, for which no code stands.
        """
        return self.tensors[self.input].codes(x)

    def real(self, codes: np.ndarray) -> np.ndarray:
        """float32 values of output codes."""
        return self.tensors[self.output].real(codes)

    def run(self, codes: np.ndarray, *, keep: bool = False) -> Any:
        """Output codes for input codes of shape (batch, *input shape), int8; see `axtrain.integers.running`.

        Args:
            codes: int8.
            keep: give a dictionary of every tensor's codes by name instead.
        """
        from axtrain.integers.running import run

        return run(self, codes, keep=keep)
