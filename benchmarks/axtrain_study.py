"""AxTrain's two methods on five data sets: passive, active and both, against going on as before.

For every data set and seed one clean network, from which each method continues for the same number of epochs:
`conventional` (in float), `decay` (in float, with weight decay), `passive` (bit-exactly on the hardware), `active` (in
float, with a penalty on the sensitivity to the hardware's noise), `both`. Hardware: a mild, a medium and a coarse
multiplier, and three bit-error rates of the weight memory. Each method has the same number of settings to choose
from, by seed 0 on a held-out part of the training data, for each hardware. Every network's figure is kept with its
settings and commit, in the end in `axtrain_study_cells.csv` beside the results, so an interrupted study goes on where
it stopped, on another machine too (`--afresh` for one that does not); `--jobs` data sets run side by side.

    python benchmarks/axtrain_study.py --data DIR [--only mnist] [--hardware mul8u_JV3]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import tensorflow as tf
from study_cells import gather, read
from study_networks import METHODS, MULTIPLIERS, Study
from study_report import report
from study_tasks import TASKS


def rows_of(name: str, arguments: argparse.Namespace) -> list[dict]:
    """One data set's rows, on this process's share of the cores."""
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    kept = {} if arguments.afresh or arguments.smoke else read(cells_file(arguments))
    return Study(name, Path(arguments.data), arguments.cache, kept, arguments.smoke).rows(arguments.hardware)


def cells_file(arguments: argparse.Namespace) -> Path:
    """Where every figure is kept."""
    return (arguments.cache if arguments.smoke else arguments.out) / "axtrain_study_cells.csv"


def main() -> None:
    """Runs what is missing and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with data/, luts/")
    parser.add_argument("--only", choices=list(TASKS), action="append", help="one data set, default all")
    parser.add_argument("--hardware", action="append", help="one hardware, default all")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/results/axtrain_study"), help="cells' folder")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where the results go")
    parser.add_argument("--afresh", action="store_true", help="take nothing from the figures kept beside the results")
    parser.add_argument("--smoke", action="store_true", help="an epoch of few samples: does it run?")
    parser.add_argument("--jobs", type=int, default=2, help="data sets at a time, default 2")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data DIR (or AXTRAIN_DATA) is needed: its luts/ and data/")
    names = arguments.only or list(TASKS)
    # A data set a process: the longest first, so that the others run beside it.
    try:
        with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
            waiting = {
                name: pool.submit(rows_of, name, arguments) for name in sorted(names, key=lambda n: n != "cifar")
            }
            rows = [row for name in names for row in waiting[name].result()]
    finally:
        cells = gather(cells_file(arguments), arguments.cache)
    took = sum(cell["seconds"] for cell in cells.values()) / 3600
    commits = ", ".join(sorted({cell["commit"] for cell in cells.values()}))
    how = f"{len(cells)} cells, {took:.1f} hours of them, {arguments.jobs} at a time; commits: {commits}"
    titles = {name: task.title for name, task in TASKS.items()}
    report(rows, arguments.out, METHODS, titles, MULTIPLIERS, [how])
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
