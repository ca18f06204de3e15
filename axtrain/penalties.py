"""What an active search penalises: three measures of how much the network feels a small error of its weights.

Perturb every weight by a d_i of mean 0 and variance s_i^2 (theory page, section 7). Each penalty is a description;
`axtrain.with_sensitivity` trains with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from axtrain.noise_models.description import Part
from axtrain.weight_noise import WEIGHTINGS

METHODS = ("exact", "first_order")


@dataclass(frozen=True)
class Penalty(Part):
    """What all penalties share; a subclass gives `gradients`.

    Args:
        strength: what the penalty is multiplied by in the loss, >= 0.
        weighting: s_i: `"hardware"`, of the layer's multiplier and memory; `"constant"`, 1; `"proportional"`,
            \\|w_i\\|; `None` is the hardware's where there is any with errors, else constant. Not differentiated.
        layers: names or patterns of the layers whose weights count; `None` takes all.
        every: the penalty acts on every k-th step, k times as strong, so that its mean is the same.
        fraction: the part of each batch that it is measured on, in (0, 1].
        probes: random vectors in each step; more make it less noisy, and dearer.
        method: how its gradient is found. `"exact"` differentiates twice, which sees the slopes between the kinks
            of rectifiers and the steps of quantisers, not the kinks. `"first_order"` differentiates once, at the
            weights and at weights moved along the penalty's direction, as sharpness-aware minimisation does
            (Foret 2021): it sees what happens within the `radius`, is cheaper, and wants float32.
        radius: of `"first_order"`: how far the weights are moved, relative to their norm.

    Raises:
        ValueError: an argument out of range.
    """

    strength: float
    weighting: str | None = None
    layers: tuple[str, ...] | None = None
    every: int = 1
    fraction: float = 1.0
    probes: int = 1
    method: str = "exact"
    radius: float = 0.01

    of_outputs: ClassVar[bool] = False
    """Whether the gradients of the outputs are penalised, rather than the loss's."""
    bends: ClassVar[bool] = False
    """Whether it is the gradient's own gradient that is penalised."""
    _what = "penalty"

    def __post_init__(self) -> None:
        if isinstance(self.layers, str):
            raise ValueError(f"`layers` must be a list of names or patterns. Received: layers={self.layers!r}")
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))
        for name, low in (("strength", 0), ("fraction", 0), ("radius", 0)):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and value < float("inf")
            if not number or value < low or (value == 0 and name != "strength"):
                wanted = "a number >= 0" if name == "strength" else "a positive number"
                raise ValueError(f"`{name}` must be {wanted}. Received: {name}={value!r}")
        if self.fraction > 1:
            raise ValueError(f"`fraction` must lie in (0, 1]. Received: fraction={self.fraction!r}")
        for name in ("every", "probes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be an int >= 1. Received: {name}={value!r}")
        for name, allowed in (("weighting", (None, *WEIGHTINGS)), ("method", METHODS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}. Received: {name}={getattr(self, name)!r}")

    def gradients(self, step: Any) -> tuple[list, Any, Any, Any]:
        """One step's gradients with the penalty.

        Args:
            step: an `axtrain.penalty_gradients.PenalisedLoss`, which has the passes over the batch, the weights that
                count and the strength of the penalty.

        Returns:
            (gradients of the scaled loss with the penalty, one for each of `step.passes.variables`; outputs; loss;
            value of the penalty before the strength).

        Raises:
            NotImplementedError: here, in the base of all penalties.
        """
        raise NotImplementedError(f"A penalty needs a method `gradients`. Received: {self!r}")


class OutputSensitivity(Penalty):
    """R2, the mean square by which the outputs move: ``(1/B) sum_b sum_k sum_i s_i^2 (dy_bk / dw_i)^2``.

    Estimated without bias by ``(1/B) sum_i s_i^2 (d/dw_i sum_bk u_bk y_bk)^2`` with an independent random sign u_bk
    for every sample and output (Rademacher). Unlike `LossGradient` it does not vanish where the loss has a minimum.
    Arguments: see `Penalty`. Sources: theory page, section 7; Choi 1992; Bernier 2000; AxTrain (He 2018).

    Examples:
        >>> import axtrain as ax
        >>> ax.OutputSensitivity(strength=1e-3, every=4).every
        4
    """

    kind = "output_sensitivity"
    of_outputs = True

    def gradients(self, step: Any) -> tuple[list, Any, Any, Any]:
        """By differentiating twice, or from a second pass at moved weights; see `Penalty.gradients`."""
        return step.exactly() if self.method == "exact" else step.output_sensitivity()


class LossGradient(Penalty):
    """R1, the squared gradient of the loss: ``1/2 sum_i s_i^2 (dL/dw_i)^2``; its gradient is ``H (s^2 g)``.

    L is the loss of the batch, regularisers included. Arguments: see `Penalty`; it takes no probes. Sources: theory
    page, section 7; Pearlmutter 1994; Dey 2017.
    """

    kind = "loss_gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.probes != 1:
            raise ValueError(f"The loss has one gradient, and nothing to probe. Received: probes={self.probes!r}")

    def gradients(self, step: Any) -> tuple[list, Any, Any, Any]:
        """By differentiating twice, or from a second pass at moved weights; see `Penalty.gradients`."""
        return step.exactly() if self.method == "exact" else step.loss_gradient()


class Curvature(Penalty):
    """R3, the mean rise of the loss to second order: ``1/2 sum_i s_i^2 H_ii = 1/2 E (s z)' H (s z)``.

    z is a vector of random signs (Hutchinson's estimator); H the Hessian of the batch's loss. Arguments: see
    `Penalty`. Sources: theory page, section 7; Dey 2017; Murray and Edwards 1994.
    """

    kind = "curvature"
    bends = True

    def gradients(self, step: Any) -> tuple[list, Any, Any, Any]:
        """By differentiating three times, or from passes at moved weights; see `Penalty.gradients`."""
        return step.exactly() if self.method == "exact" else step.curvature()


def penalty_from_dict(description: dict[str, Any]) -> Any:
    """`Penalty.from_dict`: rebuilds what a penalty's `to_dict` gave.

    Raises:
        ValueError: not a description of a penalty, or of a class that is not registered.
    """
    return Penalty.from_dict(description)
