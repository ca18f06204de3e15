"""Tables and pictures of `distributed.py`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from distributed_agents import STEPS, STRENGTH
from distributed_gradients import BATCH, SAMPLES, SLEEP, SLOWER, STRAGGLERS, TESTED, WORKERS
from matplotlib.figure import Figure
from study_training import commit
from timing import machine

from axtrain.noise_models.files import whole_file, write_whole


def picture(simulated: list[dict], measured: list[dict], agents: list[dict], path: Path) -> None:
    """Accuracy against time; loss above the optimum against steps."""
    figure = Figure(figsize=(11, 8.8), layout="constrained")
    axes = figure.subplots(3, 3)
    for row, runs, unit in ((0, simulated, "simulated time"), (1, measured, "seconds, 30 actors")):
        for column, stragglers in enumerate(STRAGGLERS):
            axis = axes[row][column]
            for run in runs:
                if run["stragglers"] == stragglers:
                    axis.plot(*np.array(run["curve"]).T, label=run["way"], linewidth=1.3)
            axis.set_title(f"LeNet-5, {stragglers} of {WORKERS} straggle", fontsize=9)
            axis.set_xlabel(unit)
            axis.set_ylim(0.5, 0.95)
    axes[0][0].set_ylabel("accuracy")
    if axes[0][0].lines:
        axes[0][0].legend(fontsize=7, frameon=False)
    for axis, name in zip(axes[2], dict.fromkeys(run["data"] for run in agents), strict=False):
        for run in agents:
            if run["data"] == name:
                above = np.maximum(np.array(run["curve"]) - run["optimum"], 1e-6)
                places = np.linspace(0, run["steps"], len(above) + 1)[1:]
                style = {"full": "-", "partial": "--", "descent": ":"}[run["surrogate"]]
                axis.semilogy(places, above, style, label=f"{run['surrogate']}, {run['agents']} agents", linewidth=1.2)
        axis.set_title(f"{name}: loss above the optimum", fontsize=9)
        axis.set_xlabel("step")
    axes[2][0].legend(fontsize=6, frameon=False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=72, format="png", pil_kwargs={"optimize": True})


def table(header: list[str], rows: list[list]) -> list[str]:
    """As Markdown."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows),
        "",
    ]


def quickest(runs: list[dict]) -> list[str]:
    """Which way needs the least time for an accuracy that all reach."""
    goal = min(max(accuracy for _, accuracy in run["curve"]) for run in runs)
    lines = [
        f"Time until {100 * goal:.1f} % are reached first. Batches are dealt at random here, so the gradient of the "
        "workers that answer is an estimate of everybody's without a bias, and dropping the late ones costs little: "
        "a code earns its work where each worker's part has to count.",
        "",
    ]
    for stragglers in dict.fromkeys(run["stragglers"] for run in runs):
        took = {
            run["way"]: next(spent for spent, accuracy in run["curve"] if accuracy >= goal)
            for run in runs
            if run["stragglers"] == stragglers
        }
        order = sorted(took, key=lambda way: took[way])
        lines.append(f"- {stragglers} of {WORKERS} straggle: " + ", ".join(f"{way} {took[way]:.0f}" for way in order))
    return lines


def report(simulated: list[dict], measured: list[dict], agents: list[dict], coded: list[dict], folder: Path) -> None:
    """Tables and picture."""
    folder.mkdir(parents=True, exist_ok=True)
    header = ["way", "stragglers", "steps", "accuracy", "time", "late"]

    def line(run: dict) -> list:
        spent, accuracy = run["curve"][-1]
        return [
            run["way"],
            run["stragglers"],
            run["steps"],
            f"{100 * accuracy:.2f}",
            f"{spent:.4g}",
            run["events"]["late"],
        ]

    agents_head = ["data", "agents", "surrogate", "tau", "objective", "optimum", "disagreement", "tracking", "seconds"]
    agent_rows = [
        [
            run["data"], run["agents"], run["surrogate"], f"{run['tau']:g}", f"{run['curve'][-1]:.4f}",
            f"{run['optimum']:.4f}", f"{run['disagreement']:.1e}", f"{run['tracking']:.1e}", f"{run['seconds']:.1f}",
        ]
        for run in agents
    ]  # fmt: skip
    coded_head = list(coded[0]) if coded else []
    coded_rows = [[f"{v:.4g}" if isinstance(v, float) else v for v in row.values()] for row in coded]
    lines = [
        "# On many machines",
        "",
        "- command: `python benchmarks/distributed.py --data DIR --ray`",
        f"- commit: {commit()}; seeds 0 and 1",
        f"- machine: {machine()}",
        "",
        f"## LeNet-5 on MNIST with {WORKERS} workers",
        "",
        f"{SAMPLES} images, batches of {BATCH}, accuracy in per cent on {TESTED} test images. Simulated: a call takes "
        f"1 for each sample, with an exponential tail of mean 0.2, and a straggling one {SLOWER:g} times as long.",
        "",
        *table(header, [line(run) for run in simulated]),
        *(
            [f"On actors of this machine, in seconds; stragglers sleep {SLEEP:g} s in each call, one epoch:", ""]
            if measured
            else []
        ),
        *(table(header, [line(run) for run in measured]) if measured else []),
        *quickest(simulated),
        "",
        "![accuracy and loss](distributed.png)",
        "",
        "## Without a centre",
        "",
        f"{STEPS} steps on random 4-regular graphs, data dealt in the order of their labels, L2 of {STRENGTH:g}. The "
        "objective is that of all data at the agents' mean weights, its optimum L-BFGS's on all data in one place; tau "
        "is the best of four for each surrogate and number of agents after 100 steps. `descent` has no tracking.",
        "",
        *table(agents_head, agent_rows),
        "## Coded nodes on actors",
        "",
        "A 64-64-10 network on digits, batch 32; one actor is killed midway. Recovery is until all nodes are there "
        "again: nearly all of it is the new process's start, while the others train on.",
        "",
        *table(coded_head, coded_rows),
    ]
    write_whole(folder / "distributed.md", "\n".join(lines).encode())
    with whole_file(folder / "distributed.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["where", *header], *[["simulated", *line(run)] for run in simulated]])
        writer.writerows([["actors", *line(run)] for run in measured])
        writer.writerows([[], agents_head, *agent_rows, [], coded_head, *coded_rows])
    picture(simulated, measured, agents, folder / "distributed.png")
