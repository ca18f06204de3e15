"""A multiplier's errors as a picture: where they are, and how they are distributed. Loads matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .multiplier import Multiplier


def multiplier_figure(multiplier: Multiplier) -> Any:
    """The error of every pair of operands as a map, and the errors' histogram with bias and standard deviation.

    Args:
        multiplier: any.

    Returns:
        a matplotlib `Figure`; nothing is shown or kept open.
    """
    from matplotlib.figure import Figure

    metrics, order = multiplier.metrics(), [np.argsort(multiplier.activation_values, kind="stable")]
    order.append(np.argsort(multiplier.weight_values, kind="stable"))  # codes of signed operands begin at 0
    error = multiplier.error[np.ix_(*order)]
    low_a, high_a = multiplier.activation_values.min(), multiplier.activation_values.max()
    low_b, high_b = multiplier.weight_values.min(), multiplier.weight_values.max()
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    surface, histogram = figure.subplots(1, 2)
    limit = max(1, np.abs(error).max())
    extent = (low_b - 0.5, high_b + 0.5, low_a - 0.5, high_a + 0.5)
    image = surface.imshow(
        error, origin="lower", extent=extent, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    figure.colorbar(image, ax=surface, label="error: product found minus exact product")
    surface.set(xlabel="weight", ylabel="activation", title="where")
    if multiplier.is_exact:
        histogram.text(0.5, 0.5, "no error", ha="center", va="center", transform=histogram.transAxes)
    histogram.hist(error.ravel(), bins=min(101, 2 * limit + 1), log=True, color="tab:gray")
    histogram.axvline(metrics.bias, color="tab:red", label=f"bias {metrics.bias:.1f}")
    span = (metrics.bias - metrics.std, metrics.bias + metrics.std)
    histogram.axvspan(*span, alpha=0.15, color="tab:red", label=f"standard deviation {metrics.std:.1f}")
    histogram.set(xlabel="error", ylabel="pairs of operands", title="how many")
    histogram.set_ylim(top=20 * histogram.get_ylim()[1])  # room for the legend
    histogram.legend()
    figure.suptitle(f"{multiplier.name}: mean absolute error {metrics.mae:.1f}, largest {metrics.wce:.0f}")
    return figure
