"""`Quantisation`: how real numbers become the integer codes that hardware stores and multiplies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from axtrain.noise_models.description import Part


def _choice(name: str, value: Any, allowed: tuple) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {allowed}. Received: {name}={value!r}")


@dataclass(frozen=True, kw_only=True)
class Quantisation(Part):
    """How real numbers become operand codes; `None` leaves a choice to the multiplier.

    Weights are symmetric, one scale per output channel or per kernel. Activations have one scale per tensor.
    """

    activations: str | None = None
    """`"affine"` (unsigned codes with a zero point; default for unsigned multipliers) or `"symmetric"`
    (signed codes, zero point 0; default for signed ones)."""
    activation_encoding: str | None = None
    """How activation codes reach the multiplier's words where they do not fit as they are: `"offset"`
    or, for symmetric codes on an unsigned multiplier, `"sign_magnitude"` (the default there). `"auto"` takes
    what fits: affine codes reach a signed multiplier by `"offset"` and an unsigned one as they are, and where no
    multiplier is given it is the signed exact one."""
    weight_encoding: str | None = None
    """How signed weight codes reach an unsigned multiplier: `"sign_magnitude"` (default) or `"offset"`."""
    activation_bits: int | None = None
    """2 to 10 bits; default the multiplier's width."""
    weight_bits: int | None = None
    """2 to 10 bits; default the multiplier's width."""
    weight_scale: str = "per_channel"
    """`"per_channel"`: one scale per output channel; or `"per_tensor"`: one for a layer's whole kernel, so that equal
    weights have equal codes in all channels, as clustered ones need."""
    bias_bits: int = 16
    """2 to 16 bits: the words of biases in a `Hardware.bias_memory`, symmetric, one scale per layer; biases
    that live in no such memory stay in float."""
    activation_range: str = "percentile"
    """Where the range comes from: `"percentile"` or `"minmax"` of the calibration data, or
    `"moving_average"` of the batches' minima and maxima during training."""
    percentile: float = 99.99
    """For `"percentile"`: how much of the calibration data lies inside the range, in per cent."""
    momentum: float = 0.99
    """For `"moving_average"`: the share of the old range kept at each step; all where the batch is not finite."""

    def __post_init__(self) -> None:
        _choice("activations", self.activations, (None, "affine", "symmetric"))
        _choice("activation_encoding", self.activation_encoding, (None, "auto", "offset", "sign_magnitude"))
        _choice("weight_encoding", self.weight_encoding, (None, "offset", "sign_magnitude"))
        _choice("weight_scale", self.weight_scale, ("per_channel", "per_tensor"))
        _choice("activation_range", self.activation_range, ("percentile", "minmax", "moving_average"))
        for name in ("activation_bits", "weight_bits"):
            bits = getattr(self, name)
            if bits is not None and (not isinstance(bits, int) or not 2 <= bits <= 10):
                raise ValueError(f"`{name}` must be an int from 2 to 10, or None. Received: {name}={bits!r}")
        if isinstance(self.bias_bits, bool) or not isinstance(self.bias_bits, int) or not 2 <= self.bias_bits <= 16:
            raise ValueError(f"`bias_bits` must be an int from 2 to 16. Received: bias_bits={self.bias_bits!r}")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"`percentile` must lie in (50, 100]. Received: percentile={self.percentile!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"`momentum` must lie in [0, 1). Received: momentum={self.momentum!r}")

    @classmethod
    def litert(cls, *, activation_range: str = "percentile", percentile: float = 99.99) -> Quantisation:
        """LiteRT's int8 scheme (Jacob et al. 2018): affine int8 activations, symmetric weights for each channel.

        A model on `Hardware(quantisation=Quantisation.litert())` multiplies as LiteRT does, so that
        `axtrain.export(..., formats=("litert",))` deploys what was measured. With a multiplier of its own, signed
        or unsigned, the same codes go through the circuit; `axtrain.integer_network` then plays its table.

        Args:
            activation_range, percentile: where ranges come from, as above.

        Examples:
            >>> import axtrain as ax
            >>> ax.Hardware(quantisation=ax.Quantisation.litert()).activation_codes
            (-128, 127)
        """
        return cls(
            activations="affine",
            activation_encoding="auto",
            activation_bits=8,
            weight_bits=8,
            activation_range=activation_range,
            percentile=percentile,
        )
