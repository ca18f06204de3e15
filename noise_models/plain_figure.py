"""`PlainFigure`: a matplotlib figure that draws every word as it stands. Loads matplotlib."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter


class PlainFigure(Figure):
    """A `Figure` in which `$`, `\\` and `_` are letters: names of layers, hardware and metrics are anybody's.

    matplotlib takes what stands between two `$` for mathematics, and raises where it cannot be read. Only the ticks of
    logarithmic axes, whose powers of ten matplotlib writes so itself, are read that way here.
    """

    def draw(self, renderer: Any) -> None:
        """Draws the figure, its texts as they stand."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
        for axis in (axis for axes in self.axes for axis in (axes.xaxis, axes.yaxis)):
            if isinstance(axis.get_major_formatter(), LogFormatter):
                for label in axis.get_ticklabels(which="both"):
                    label.set_parse_math(True)
        super().draw(renderer)
