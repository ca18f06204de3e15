"""Berrut approximated coded computing: any function of several inputs, approximately, from whichever workers answer.

K inputs become ``u(z) = sum_i l_i(z) X_i`` by Berrut's rational interpolant; worker j computes ``f(u(z_j))``; results
that are there are interpolated again and read off where u is an input. There is no recovery threshold: more results
make a smaller error. Sources: Jahani-Nezhad and Maddah-Ali 2020; Berrut 1988; Floater and Hormann 2007; theory page,
section 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from axtrain.coded.code import at_least

DECODERS = ("berrut", "floater_hormann")


@dataclass(frozen=True)
class Berrut:
    """Coded points and weights.

    Args:
        groups: K, inputs.
        workers: coded inputs, at ``z_j = cos(j pi / (workers - 1))``.
        decoder: `berrut`, the paper's; `floater_hormann`, of a higher order where the function is smooth.
        degree: d of the latter, the polynomials that are blended; 1 for functions with kinks.

    Raises:
        ValueError: numbers that are not whole, fewer than two workers, another decoder.

    Examples:
        >>> import numpy as np
        >>> code = Berrut(groups=4, workers=64)
        >>> x = np.linspace(-1.0, 1.0, 4)
        >>> received = np.delete(np.arange(64), [3, 20, 21])
        >>> found = code.decode(np.tanh(code.encode(x))[received], received)
        >>> bool(np.abs(found - np.tanh(x)).max() < 0.05)
        True
    """

    groups: int
    workers: int
    decoder: str = "berrut"
    degree: int = 3

    def __post_init__(self) -> None:
        at_least(self.groups, 1, "groups")
        at_least(self.workers, 2, "workers")
        at_least(self.degree, 0, "degree")
        if self.decoder not in DECODERS:
            raise ValueError(f"`decoder` must be one of {', '.join(DECODERS)}. Received: decoder={self.decoder!r}")

    @cached_property
    def inputs(self) -> np.ndarray:
        """Where u is an input: ``alpha_i = cos((2 i + 1) pi / (2 K))``, shape (K,)."""
        return np.cos((2 * np.arange(self.groups) + 1) * np.pi / (2 * self.groups))

    @cached_property
    def points(self) -> np.ndarray:
        """Of the workers: shape (workers,), falling."""
        return np.cos(np.arange(self.workers) * np.pi / (self.workers - 1))

    @cached_property
    def encoder(self) -> np.ndarray:
        """``l_i(z_j)``: shape (workers, K); each row sums to 1."""
        return barycentric(self.inputs, _alternating(self.groups), self.points)

    def decoding(self, received: np.ndarray) -> np.ndarray:
        """Weights of the received results in each decoded one: shape (K, received).

        Signs alternate by rank among the received points: by the workers' own numbers the interpolant has poles.

        Args:
            received: numbers of the workers, in any order.

        Raises:
            ValueError: none, or the same twice.
        """
        received = np.asarray(received)
        if received.size == 0 or len(np.unique(received)) != received.size:
            raise ValueError(f"Decoding needs at least one result, each worker's once. Received: {received.tolist()}")
        order = np.argsort(received)  # the points fall with the number
        nodes = self.points[received[order]]
        weights = np.empty((self.groups, received.size))
        weights[:, order] = barycentric(nodes, self._weights(nodes), self.inputs)
        return weights

    def encode(self, inputs: np.ndarray) -> np.ndarray:
        """Coded inputs, shape (workers, ...), of inputs of shape (K, ...)."""
        return np.tensordot(self.encoder, inputs, axes=1).astype(np.result_type(inputs, np.float32), copy=False)

    def decode(self, results: np.ndarray, received: np.ndarray) -> np.ndarray:
        """Results for the K inputs, from the received ones, shape (received, ...)."""
        return np.tensordot(self.decoding(received), results, axes=1)

    def bound(self, lost: int, second: float, first: float = 0.0) -> float:
        """The paper's bound of the error: ``2 (1 + R) sin((s + 1) pi / (2 N)) (|g''| [+ |g'|])``.

        With N = workers - 1 and ``R = (s + 1) (s + 3) pi^2 / 4``; the first derivative counts where N - s is even.
        It holds and is loose.

        Args:
            lost: s, results that are missing.
            second: the largest ``|g''|`` on [-1, 1] of g = f(u(z)).
            first: the largest ``|g'|``.
        """
        intervals = self.workers - 1
        factor = (lost + 1) * (lost + 3) * np.pi**2 / 4
        derivatives = second + (first if (intervals - lost) % 2 == 0 else 0.0)
        return float(2 * (1 + factor) * np.sin((lost + 1) * np.pi / (2 * intervals)) * derivatives)

    def _weights(self, nodes: np.ndarray) -> np.ndarray:
        if self.decoder == "berrut":
            return _alternating(len(nodes))
        return floater_hormann(nodes, min(self.degree, len(nodes) - 1))


def barycentric(nodes: np.ndarray, weights: np.ndarray, points: np.ndarray) -> np.ndarray:
    """``w_i / (z - a_i)`` over their sum, exact where z is a node: shape (points, nodes)."""
    apart = points[:, None] - nodes[None]
    same = np.abs(apart) < 1e-14
    terms = weights / np.where(same, 1.0, apart)
    shares = terms / terms.sum(axis=1, keepdims=True)
    at_node = same.any(axis=1, keepdims=True)
    return np.where(at_node, same, shares)


def floater_hormann(nodes: np.ndarray, degree: int) -> np.ndarray:
    """Weights of the rational interpolant that blends polynomials. Source: Floater and Hormann 2007, eq. 18.

    Args:
        nodes: falling or rising, shape (n,).
        degree: d < n.
    """
    count = len(nodes)
    weights = np.zeros(count)
    for k in range(count):
        for first in range(max(0, k - degree), min(k, count - 1 - degree) + 1):
            others = np.delete(nodes[first : first + degree + 1], k - first)
            weights[k] += (-1.0) ** first / np.prod(nodes[k] - others)
    return weights


def _alternating(count: int) -> np.ndarray:
    return (-1.0) ** np.arange(count)
