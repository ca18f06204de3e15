"""The AxTrain study's table, paired comparisons and picture."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
from scipy import stats

from axtrain.noise_models import picture_style as style

INTRODUCTION = """\
One clean network for each data set and seed. Every method goes on from it for the same number of epochs:
`conventional` and `decay` in float, without and with weight decay; `passive` bit-exactly on the hardware; `active` in
float, with a penalty on how much the hardware's noise moves the loss; `both` on the hardware with the penalty. Each has
the same number of settings (rate of Adam, decay, share of the penalty in the loss), chosen for each hardware by seed 0
on training samples held out for it. Then every network is played bit-exactly: on multipliers once, on faulty memories
on 20 chips. Hardware: a mild, a medium and a coarse multiplier, and weight memories in which this share of the bits
is wrong, for good, on a chip of its own. `exact` is the conventional network on exact 8-bit hardware, tuned for it: the
distance to it is what there is to win.

AxTrain's authors report that active training alone removes 40.8, 34.6 and 25.2 % of the errors that conventional
training has at three levels of approximation, and both methods 75.6, 58.5 and 37.7 %. Their levels are not public,
so those figures are context, not what is compared here."""


def accuracies(rows: list[dict], key: tuple[str, str, str], method: str) -> np.ndarray:
    """In per cent, one for each seed in order.

    Args:
        rows: of the study.
        key: data, hardware and part.
        method: of training.
    """
    chosen = [r for r in rows if (r["data"], r["hardware"], r["part"]) == key and r["method"] == method]
    return np.array([100 * row["accuracy"] for row in sorted(chosen, key=lambda row: row["seed"])])


def exact(rows: list[dict], key: tuple[str, str, str]) -> np.ndarray:
    """Of the conventional networks on exact 8-bit hardware, in per cent; empty where they were not asked for."""
    return accuracies(rows, (key[0], "exact", key[2]), "conventional")


def spread(values: np.ndarray) -> float:
    """Standard deviation over seeds; 0 of one."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def paired(rows: list[dict], key: tuple[str, str, str], better: str, than: str) -> tuple[float, float, float]:
    """Mean gain in points over seeds, and its 95 % interval by Student's t."""
    gains = accuracies(rows, key, better) - accuracies(rows, key, than)
    half = np.nan
    if len(gains) > 1:
        half = float(stats.t.ppf(0.975, len(gains) - 1)) * gains.std(ddof=1) / len(gains) ** 0.5
    return float(gains.mean()), float(gains.mean() - half), float(gains.mean() + half)


def words(hardware: str, levels: dict[str, str]) -> str:
    """`mul8u_JV3, coarse`; `1 % of bits`."""
    for level, multiplier in levels.items():
        if multiplier == hardware:
            return f"{hardware}, {level}"
    return f"{100 * float(hardware.removeprefix('bits ')):g} % of bits"


def _bit_error_rate(hardware: str) -> float:
    return float(hardware.removeprefix("bits ")) if hardware.startswith("bits ") else 0.0


def report(rows: list[dict], folder: Path, methods, titles: dict, levels: dict, notes: list[str]) -> None:
    """Writes the CSV, the Markdown and the picture.

    Args:
        rows: of the study.
        folder: where they go.
        methods: of training, in the table's order.
        titles: of the data sets, by name.
        levels: multipliers, by level.
        notes: on how the study was run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "axtrain_study.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    keys = list(dict.fromkeys((row["data"], row["hardware"], row["part"]) for row in rows))
    keys = [key for key in keys if key[1] != "exact"]
    lines = [
        "# AxTrain: active, passive, both",
        "",
        INTRODUCTION,
        "",
        "- command: `python benchmarks/axtrain_study.py --data DIR`",
        *(f"- {note}" for note in [*notes, f"{os.cpu_count()} cores"]),
        "- accuracy in per cent: mean +- standard deviation over seeds",
        "",
        "| data | hardware | part | exact | " + " | ".join(methods) + " |",
        "|---" * (4 + len(methods)) + "|",
    ]
    for key in keys:
        found = [exact(rows, key), *(accuracies(rows, key, method) for method in methods)]
        cells = [f"{one.mean():.2f} +- {spread(one):.2f}" if len(one) else "" for one in found]
        lines.append(f"| {titles[key[0]]} | {words(key[1], levels)} | {key[2]} | " + " | ".join(cells) + " |")
    pairs = [("passive", "conventional"), ("both", "passive"), ("active", "conventional")]
    lessened = ("active", "passive", "both")
    lines += [
        "",
        "Gains in points, paired over seeds and chips, with 95 % intervals, and the share of conventional training's "
        "errors that is gone.",
        "",
        "| data | hardware | part | " + " | ".join(f"{a} over {b}" for a, b in pairs) + " | errors less: "
        + " | ".join(lessened) + " |",
        "|---" * 9 + "|",
    ]  # fmt: skip
    for key in keys:
        gains = [paired(rows, key, *pair) for pair in pairs]
        texts = [f"{gain:+.2f} ({low:+.2f} .. {high:+.2f})" for gain, low, high in gains]
        left = {method: 100 - accuracies(rows, key, method).mean() for method in (*lessened, "conventional")}
        texts += [f"{100 * (1 - left[method] / left['conventional']):.1f} %" for method in lessened]
        lines.append(f"| {titles[key[0]]} | {words(key[1], levels)} | {key[2]} | " + " | ".join(texts) + " |")
    lines += verdicts(rows, keys, levels)
    lines += ["", "![errors left](axtrain_study.png)", ""]
    (folder / "axtrain_study.md").write_text("\n".join(lines))
    _picture(rows, keys, methods, titles, levels, folder / "axtrain_study.png")


def verdicts(rows: list[dict], keys: list[tuple[str, str, str]], levels: dict[str, str]) -> list[str]:
    """For each hardware, on how many data sets the 95 % interval of a gain lies above zero, and below."""
    lines = [
        "",
        "Data sets on which the 95 % interval of the gain, on the test part, lies above zero; and below it.",
        "",
    ]
    pairs = (("both", "passive"), ("passive", "conventional"), ("active", "conventional"))
    lines += ["| hardware | " + " | ".join(f"{a} over {b}" for a, b in pairs) + " |", "|---" * (1 + len(pairs)) + "|"]
    for hardware in sorted(dict.fromkeys(key[1] for key in keys), key=_bit_error_rate):
        judged = [key for key in keys if key[1] == hardware and key[2] == "test"]
        texts = []
        for better, than in pairs:
            gains = {key[0]: paired(rows, key, better, than) for key in judged}
            above = [name for name, (_, low, _) in gains.items() if low > 0]
            below = [name for name, (_, _, high) in gains.items() if high < 0]
            listed = f" ({', '.join(above)})" if above else ""
            lost = f"; below: {', '.join(below)}" if below else ""
            texts.append(f"{len(above)} of {len(judged)}{listed}{lost}")
        lines.append(f"| {words(hardware, levels)} | " + " | ".join(texts) + " |")
    return lines


def _picture(rows, keys, methods, titles, levels, path: Path) -> None:
    """For each data set, the errors left by every method on every hardware."""
    names = list(dict.fromkeys(data for data, _, _ in keys))
    colours = (style.SILVER, style.MUTED, style.SKY, style.ORANGE, style.BLUE)
    figure, panels = style.panels(6.4, 2.2, len(names))  # above one another
    for axes, name in zip(panels, names, strict=True):
        shown = [key for key in keys if key[0] == name and key[2] != "val"]
        for number, method in enumerate(methods):
            errors = [100 - accuracies(rows, key, method) for key in shown]
            places = np.arange(len(shown)) + (number - (len(methods) - 1) / 2) * 0.16
            look = {"label": method, "color": colours[number], "error_kw": {"elinewidth": 0.8}}
            axes.bar(places, [e.mean() for e in errors], 0.15, yerr=[spread(e) for e in errors], **look)
        if shown and len(ceiling := exact(rows, shown[0])):
            axes.axhline(100 - ceiling.mean(), color="black", linewidth=1, linestyle=":", label="exact 8 bits")
        below = [words(key[1], levels).replace(", ", "\n").replace(" of", "\nof") for key in shown]
        axes.set_xticks(np.arange(len(shown)), below, fontsize="small")
        axes.set_title(titles[name], loc="left", fontsize="medium")
        axes.set_ylabel("errors [%]")
    style.legend_below(figure, narrow=len(methods) + 1)
    figure.savefig(path, dpi=120)
