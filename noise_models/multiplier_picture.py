"""A multiplier's errors as a picture: where they are, and how they are distributed. Loads matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import picture_style as style

if TYPE_CHECKING:
    from .multiplier import Multiplier

# Too much is warm and lighter than too little, which is cold and dark: told apart without colour too.
_TOO_LITTLE, _NONE, _TOO_MUCH = "#08306b", "#f7f7f7", "#e8601c"


def multiplier_figure(multiplier: Multiplier, *, width: float = 10.0) -> Any:
    """The error of every pair of operands as a map, and the errors' histogram with bias and standard deviation.

    Args:
        multiplier: any.
        width: of the picture in inches; below 6.5 the panels stand above one another.

    Returns:
        a matplotlib `Figure`; nothing is shown or kept open.
    """
    from matplotlib.colors import LinearSegmentedColormap

    metrics, order = multiplier.metrics(), [np.argsort(multiplier.activation_values, kind="stable")]
    order.append(np.argsort(multiplier.weight_values, kind="stable"))  # codes of signed operands begin at 0
    error = multiplier.error[np.ix_(*order)]
    low_a, high_a = multiplier.activation_values.min(), multiplier.activation_values.max()
    low_b, high_b = multiplier.weight_values.min(), multiplier.weight_values.max()
    figure, (surface, histogram) = style.panels(width, 4.2, 2)
    limit = max(1, np.abs(error).max())
    extent = (low_b - 0.5, high_b + 0.5, low_a - 0.5, high_a + 0.5)
    image = surface.imshow(
        error, origin="lower", extent=extent, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest",
        cmap=LinearSegmentedColormap.from_list("error", (_TOO_LITTLE, _NONE, _TOO_MUCH)),
    )  # fmt: skip
    surface.grid(False)
    scale = figure.colorbar(image, ax=surface, label="error: product found minus exact product")
    scale.outline.set_visible(False)
    surface.set(xlabel="weight [code]", ylabel="activation [code]", title="where the errors are")
    if multiplier.is_exact:
        histogram.text(0.5, 0.5, "no error", ha="center", va="center", transform=histogram.transAxes)
    histogram.hist(error.ravel(), bins=min(101, 2 * limit + 1), log=True, color=style.SILVER)
    span = (metrics.bias - metrics.std, metrics.bias + metrics.std)
    histogram.axvline(metrics.bias, color=style.VERMILLION, linewidth=1.2, label=f"bias {metrics.bias:.1f}")
    histogram.axvspan(
        *span, alpha=0.15, color=style.VERMILLION, linewidth=0, label=f"standard deviation {metrics.std:.1f}"
    )
    histogram.set(xlabel="error", ylabel="pairs of operands", title="how many are how large")
    style.title(figure, f"{multiplier.name}: mean absolute error {metrics.mae:.1f}, largest {metrics.wce:.0f}")
    style.legend_below(figure)
    return figure
