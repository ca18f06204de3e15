"""Who talks to whom, and with what weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Edges = dict[int, set[int]]
"""For each agent its neighbours, without itself."""


def edges_of(graph: Any, agents: Iterable[int]) -> Edges:
    """Of a networkx graph, or of pairs of agents, among these agents.

    Args:
        graph: undirected; nodes 0, 1, 2 and so on.
        agents: who is there.

    Raises:
        ValueError: an agent that the graph does not have.

    Examples:
        >>> edges_of([(0, 1), (1, 2)], range(3))
        {0: {1}, 1: {0, 2}, 2: {1}}
    """
    pairs = list(graph.edges) if hasattr(graph, "edges") else list(graph)
    found: Edges = {agent: set() for agent in agents}
    known = set(graph.nodes) if hasattr(graph, "nodes") else {agent for pair in pairs for agent in pair}
    missing = sorted(set(found) - known)
    if missing and len(found) > 1:
        raise ValueError(f"The graph has no agent {missing[0]}. Received: agents {sorted(known)}")
    for a, b in pairs:
        if a != b and a in found and b in found:
            found[a].add(b)
            found[b].add(a)
    return found


def metropolis(edges: Edges) -> dict[int, dict[int, float]]:
    """Doubly stochastic weights: ``c_ij = 1 / (1 + max(deg_i, deg_j))``, ``c_ii = 1 - sum_j c_ij``.

    Source: Xiao and Boyd 2004; theory page, section 10.

    Examples:
        >>> metropolis({0: {1}, 1: {0}})
        {0: {1: 0.5, 0: 0.5}, 1: {0: 0.5, 1: 0.5}}
    """
    weights: dict[int, dict[int, float]] = {}
    for agent, neighbours in edges.items():
        own = {j: 1.0 / (1 + max(len(neighbours), len(edges[j]))) for j in sorted(neighbours)}
        weights[agent] = {**own, agent: 1.0 - sum(own.values())}
    return weights


def is_connected(edges: Edges) -> bool:
    """Whether each agent reaches each other one."""
    if not edges:
        return True
    reached, ahead = set[int](), [next(iter(edges))]
    while ahead:
        agent = ahead.pop()
        if agent not in reached:
            reached.add(agent)
            ahead += edges[agent]
    return len(reached) == len(edges)
