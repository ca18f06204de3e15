"""Three ways to train on many machines, beside what they compete with.

- `berrut`: LeNet-5 on MNIST with 30 workers of whom 0, 5 or 10 straggle in each step: Berrut's code against repetition,
  uncoded with stragglers dropped, and uncoded waiting for all; accuracy against simulated time. With `--ray` also on
  30 actors, where stragglers sleep: accuracy against the wall's time.
- `next`: NEXT with full and partial linearisation, and decentralised gradient descent, against the centralised optimum
  on three data sets of scikit-learn with 10 to 50 agents.
- `nodes`: CodeNet on Ray's actors against replication: time of a step, bytes moved, time to recover from a kill.

Results go to `docs/results/distributed*.{csv,md,png}`; each part is kept in a folder and not done again.
With --data DIR (or AXTRAIN_DATA) MNIST of `DIR/data`; else Keras's copy.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from distributed_agents import without_a_centre
from distributed_gradients import STRAGGLERS, berrut, berrut_on_actors
from distributed_nodes import nodes
from distributed_report import report

from axtrain.noise_models.files import write_whole


def kept(path: Path, make) -> list[dict]:
    """What a part gave, from its file where it was done."""
    if path.is_file():
        return json.loads(path.read_text())
    found = make()
    write_whole(path, json.dumps(found).encode())
    return found


def main() -> None:
    """Runs what is missing and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AXTRAIN_DATA"), help="folder with data/")
    parser.add_argument(
        "--cache", type=Path, default=Path("benchmarks/results/distributed"), help="parts are kept here"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where the results go")
    parser.add_argument("--ray", action="store_true", help="also LeNet-5 on 30 actors: 15 GB of memory")
    parser.add_argument("--smoke", action="store_true", help="a little of each part: does it run?")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    data = None if arguments.data is None else Path(arguments.data)
    smoke, cache = arguments.smoke, arguments.cache
    simulated = kept(cache / "berrut.json", lambda: berrut(data, smoke))
    agents = kept(cache / "next.json", lambda: without_a_centre(smoke))
    coded = kept(cache / "nodes.json", lambda: nodes(smoke))
    measured = []
    for number in (STRAGGLERS[:1] if smoke else STRAGGLERS) if arguments.ray else ():
        found = kept(cache / f"actors-{number}.json", lambda number=number: berrut_on_actors(data, number, smoke))
        measured += found
    report(simulated, measured, agents, coded, arguments.out)
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
