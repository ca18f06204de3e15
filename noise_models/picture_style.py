"""How every picture looks: one palette, quiet axes, legends below. matplotlib is loaded when a picture is made.

The colours are those of Okabe and Ito (2008), told apart with any colour vision; where a picture has two, their
lightness differs too, so that it survives a black and white print.
"""

from __future__ import annotations

from typing import Any

INK = "#22272e"  # text, and what is singled out
MUTED = "#6b7580"  # frames, bounds, references
GRID = "#dfe3e8"
PAPER = "#ffffff"
BLUE = "#0072b2"
SKY = "#56b4e9"
GREEN = "#009e73"
ORANGE = "#e69f00"
VERMILLION = "#d55e00"
PURPLE = "#cc79a7"
SILVER = "#b8bec6"
AMBER = "#8a5a00"  # orange that letters can have

# What a colour means is the same in every picture.
MEAN, WORST, BEFORE, AFTER, ENERGY, NOISE = BLUE, VERMILLION, SILVER, BLUE, GREEN, ORANGE

WIDTH = 7.5  # inches
_STACKED = 6.5  # inches: in narrower pictures panels stand above one another


def new_figure(width: float, height: float) -> Any:
    """A matplotlib `Figure`, its size in inches, neither shown nor kept open; names in it are drawn as they stand."""
    from .plain_figure import PlainFigure

    return PlainFigure(figsize=(width, height), layout="constrained")


def panels(width: float, height: float, count: int = 1, *, ratios: tuple[float, ...] | None = None) -> tuple[Any, list]:
    """A figure and its axes: beside one another, or above one another where the picture is narrow.

    Args:
        width: of the figure in inches.
        height: of one row of panels in inches.
        count: how many panels.
        ratios: their widths (beside one another only).

    Returns:
        a matplotlib `Figure`, which is neither shown nor kept open, and a list of `Axes`.
    """
    stacked = count > 1 and width < _STACKED
    figure = new_figure(width, height * (count if stacked else 1))
    rows, columns = (count, 1) if stacked else (1, count)
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=None if stacked else ratios).ravel().tolist()
    for one in axes:
        tidy(one)
    return figure, axes


def tidy(axes: Any, *, grid: str | None = "y", right: bool = False) -> None:
    """Frames and ticks that stay in the background.

    Args:
        axes: to change.
        grid: lines across `"x"`, `"y"` or `"both"`; `None` for none.
        right: whether the axis of values is on the right, as for a second one.
    """
    axes.spines[["top", "left" if right else "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK, which="both")
    axes.grid(False)
    if grid is not None:
        axes.grid(True, axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def second_axis(axes: Any, label: str, colour: str) -> Any:
    """A second axis of values on the right, behind the first, in the colour of what it measures."""
    second = axes.twinx()
    tidy(second, grid=None, right=True)
    second.spines["left"].set_visible(False)
    second.set_ylabel(label, color=colour)
    second.tick_params(axis="y", colors=colour, labelcolor=colour)
    axes.set_zorder(second.get_zorder() + 1)
    axes.patch.set_visible(False)
    return second


def title(figure: Any, words: str) -> None:
    """The one thing that a picture says, above it; broken where it would be wider than the picture."""
    import textwrap

    figure.suptitle("\n".join(textwrap.wrap(words, max(20, int(11 * figure.get_figwidth())))), color=INK)


def label(words: str) -> str:
    """A legend's words as matplotlib shows them: it leaves out those that begin with an underscore."""
    return f" {words}" if words.startswith("_") else words


def legend_below(figure: Any, columns: int = 2, narrow: int = 1) -> None:
    """What the marks mean, below the picture, in fewer columns where it is narrow; what panels share comes once."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        found.update({label: mark for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)})
    count = narrow if figure.get_figwidth() < _STACKED else columns
    place = {"loc": "outside lower center", "ncols": count, "fontsize": "small", "frameon": False}
    figure.legend(found.values(), found.keys(), **place)
