"""What a step takes on many machines, played event by event: messages, bytes, memory and time for each node.

A node's products take operations over its speed; a message takes the link's latency and its bytes over the link's rate,
one after another at the node that receives them; nodes that are slow by chance hold up those who wait for them. The
numbers of a `Machine` are to be measured; `docs/scaling.md` does so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from axtrain.coded.code import Code

WORD = 4  # bytes of a float32


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One node and its link.

    Args:
        speed: float32 operations in a second.
        bandwidth: bytes in a second, into a node.
        latency: seconds for a message.
        overhead: seconds for a call, whatever it does.
        jitter: mean of an exponential delay of each call, as a share of its time.
        cores: processors that all nodes share, as on one machine; `None` gives each its own.
    """

    speed: float = 5e10
    bandwidth: float = 1.25e9
    latency: float = 5e-5
    overhead: float = 5e-4
    jitter: float = 0.1
    cores: int | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one step; for the node with the most.

    Attributes:
        nodes: P.
        messages: received.
        received: bytes.
        memory: bytes of weights, momentum and what a step keeps.
        operations: of products, on one node.
        seconds: mean over the plays.
    """

    nodes: int
    messages: int
    received: int
    memory: int
    operations: float
    seconds: float


def coded_step(
    code: Code, sizes: Sequence[int], batch: int, machine: Machine | None = None, *, plays: int = 20, seed: int = 0
) -> Cost:
    """A step of `CodedTrainer`: every node gets all products of every stage.

    Args:
        code: how kernels are spread.
        sizes: of the dense layers, inputs first: 784, 1024, 10 is two layers.
        batch: samples.
        machine: what nodes are.
        plays: of the step.
        seed: of the jitter.

    Examples:
        >>> from axtrain.coded import CodeNet
        >>> coded_step(CodeNet(4, 5, 1), (784, 1024, 1024, 10), 100).messages
        146
    """
    machine = machine or Machine()
    m, n = code.grid
    layers = [(inputs + 1, outputs) for inputs, outputs in pairwise(sizes)]
    stages = [("forward", *layer) for layer in layers] + [("backward", *layer) for layer in layers[:0:-1]]
    shard = [(-(-rows // n), -(-columns // m)) for rows, columns in layers]
    work, messages, received = [], 0, 0
    for name, rows, columns in stages:
        height, width = -(-rows // n), -(-columns // m)
        senders = len(getattr(code, name).shards)
        size = batch * (width if name == "forward" else height) * WORD
        messages, received = messages + senders, received + senders * size
        work.append((2.0 * batch * height * width, senders, senders * size))
    update = sum(2.0 * batch * height * width for height, width in shard)
    operations = update + sum(part for part, _, _ in work)
    kept = batch * (sum(rows for rows, _ in layers) + sum(columns for _, columns in layers)) * WORD
    memory = 2 * sum(height * width for height, width in shard) * WORD + kept + max(size for _, _, size in work)
    generator = np.random.default_rng(seed)
    times = []
    for _ in range(plays):
        now = 0.0
        for part, senders, size in [*work, (0.0, 0, 0), (update, 0, 0)]:  # the last decoding has no product after it
            now += _slowest(part / machine.speed, code.shards, machine, generator)
            now += senders * machine.latency + size / machine.bandwidth
        times.append(now)
    return Cost(
        nodes=code.shards, messages=messages, received=received, memory=memory, operations=operations,
        seconds=float(np.mean(times)),
    )  # fmt: skip


def berrut_step(
    workers: int, wait_for: int, groups: int, weights: int, sample: int, batch: int, operations: float,
    machine: Machine | None = None, *, plays: int = 20, seed: int = 0,
) -> Cost:  # fmt: skip
    """A step of `BerrutTrainer`, at its driver: weights and coded samples out, gradients in.

    Args:
        workers, wait_for, groups: as for the trainer.
        weights: of the model.
        sample: values of one.
        batch: samples.
        operations: of one sample's gradient.
        machine: what workers are; the driver's link has its bandwidth too.
    """
    machine = machine or Machine()
    each = batch // groups
    out = workers * (weights + each * sample) * WORD
    back = wait_for * weights * WORD
    generator = np.random.default_rng(seed)
    one = each * operations / machine.speed
    times = [
        (out + back) / machine.bandwidth
        + 2 * machine.latency * workers
        + _slowest(one, workers, machine, generator, wait_for)
        for _ in range(plays)
    ]
    return Cost(
        nodes=workers, messages=wait_for, received=back, memory=(2 * weights + each * sample) * WORD,
        operations=each * operations, seconds=float(np.mean(times)),
    )  # fmt: skip


def network_step(
    agents: int, degree: int, weights: int, samples: int, operations: float, machine: Machine | None = None, *,
    plays: int = 20, seed: int = 0,
) -> Cost:  # fmt: skip
    """A step of `NetworkTrainer` with `full` linearisation: weights and tracked gradients of the neighbours.

    Args:
        agents: how many.
        degree: neighbours of each.
        weights: of the model.
        samples: of one agent.
        operations: of one sample's gradient.
        machine: what agents are.
    """
    machine = machine or Machine()
    received = degree * 2 * weights * 2 * WORD  # z and y, in float64
    generator = np.random.default_rng(seed)
    one = samples * operations / machine.speed
    moved = degree * machine.latency + received / machine.bandwidth
    times = [moved + _slowest(one, agents, machine, generator) for _ in range(plays)]
    return Cost(
        nodes=agents, messages=degree, received=received, memory=(4 + 2 * degree) * weights * 2 * WORD,
        operations=samples * operations, seconds=float(np.mean(times)),
    )  # fmt: skip


def _slowest(
    seconds: float, nodes: int, machine: Machine, generator: np.random.Generator, count: int | None = None
) -> float:
    """When `count` of the nodes, or all, have done their part."""
    alone = seconds + machine.overhead
    times = np.sort(alone * (1.0 + generator.exponential(machine.jitter, nodes)))
    last = float(times[(count or nodes) - 1])
    shared = 0.0 if machine.cores is None else float(times.sum()) / machine.cores
    return max(last, shared)
