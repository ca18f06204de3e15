"""Pictures where people would look rather than read."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure


def chips_figure(clean: float, before, after, energies: dict[str, float], *, title: str) -> Figure:
    """Accuracy of each chip before and after training for the hardware, and the energy behind it.

    Args:
        clean: accuracy of the conventionally trained network in float.
        before, after: `Evaluation`s of the same chips.
        energies: label to energy of one inference in nanojoules.
        title: of the figure.

    Returns:
        a matplotlib figure; nothing is shown or kept open.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    chips, energy = figure.subplots(1, 2, width_ratios=(3, 1))
    figure.suptitle(title)
    position = np.arange(1, len(before.accuracies) + 1)
    for evaluation, label, marker in ((before, "conventional", "v"), (after, "trained for it", "o")):
        chips.plot(
            position,
            100 * np.sort(evaluation.accuracies),
            marker=marker,
            label=f"{label}: mean {100 * evaluation.mean:.1f} %, worst {100 * evaluation.worst:.1f} %",
        )
    chips.axhline(100 * clean, color="grey", linestyle="--", label=f"conventional in float: {100 * clean:.1f} %")
    chips.xaxis.get_major_locator().set_params(integer=True)
    chips.set_xlabel("chip, each network's worst first")
    chips.set_ylabel("test accuracy [%]")
    figure.legend(loc="outside lower left", ncols=3, fontsize="small")
    bars = energy.bar(list(energies), list(energies.values()), color=["grey", "tab:green"])
    energy.bar_label(bars, fmt="%.0f")
    energy.margins(y=0.1)
    energy.set_ylabel("energy per inference [nJ], modelled")
    return figure
