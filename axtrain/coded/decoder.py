"""The joint decoder: which nodes were wrong, judged from all columns of their results at once, and what was right.

Results of N nodes, ``Y = G M + E``, checked by ``S = H Y`` with ``H G = 0``: a clean S is zero to rounding. The wrong
nodes' columns of H span the range of S, so up to N - K - 1 of them are found where their errors are independent,
and any floor((N - K) / 2) whatever the errors are. Source: theory page, section 8.
"""

from __future__ import annotations

from functools import partial
from itertools import combinations
from math import comb
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from axtrain.coded.generators import parity_checks

CLEAN, CORRECTED, UNCORRECTABLE = 0, 1, 2
"""What a decoder says of a group of results."""

MOST_SUPPORTS = 25_000
"""Sets of wrong nodes that are tried one by one where their errors depend on each other."""

_SURE = 1.0 - 1e-4  # of a node's column of H within the strong part of the syndrome
_NOISE = 0.1  # of a dirty column, squared, in units of its tolerance: most that rounding adds to an eigenvalue
_SMALLEST, _LARGEST = 1e-60, 1e100  # squares of what lies between stay finite
_FLOOR = 1e-12  # of the largest eigenvalue: below it float64 says nothing


class Decoded(NamedTuple):
    """What `Decoder.decode` returns; g groups, N nodes, K messages, c columns.

    Attributes:
        messages: shape (g, K, c), float64.
        wrong: boolean, shape (g, N): nodes found wrong or erased.
        status: shape (g,), int32: `CLEAN`, `CORRECTED` or `UNCORRECTABLE`.
    """

    messages: Any
    wrong: Any
    status: Any


class Decoder:
    """Decodes results of one linear code, in float64, for many groups at once, in a graph or eagerly.

    Args:
        generator: shape (N, K).
        adversarial: trust only what is right whatever the errors are: at most floor((N - K) / 2) wrong nodes.
            Otherwise up to N - K - 1, right with probability 1 for independent errors.

    Examples:
        >>> import numpy as np
        >>> from axtrain.coded.generators import systematic
        >>> decoder = Decoder(systematic(8, 5))
        >>> message = np.random.default_rng(0).standard_normal((1, 5, 100))
        >>> results = decoder.generator @ message
        >>> results[:, [1, 6]] = 7.0 * np.random.default_rng(1).standard_normal((1, 2, 100))
        >>> found = decoder.decode(results, np.full((1, 100), 1e-9))
        >>> np.flatnonzero(found.wrong[0]), bool(np.allclose(found.messages, message))
        (array([1, 6]), True)
    """

    def __init__(self, generator: np.ndarray, *, adversarial: bool = False) -> None:
        self.generator = np.asarray(generator, "float64")
        self.checks = parity_checks(self.generator)
        self.nodes, self.messages = self.generator.shape
        self.redundancy = self.nodes - self.messages
        certain, independent = self.redundancy // 2, max(self.redundancy - 1, 0)
        self.most_errors = certain if adversarial else max(certain, independent)
        self.supports = _supports(self.nodes, certain)
        self.is_systematic = bool((self.generator[: self.messages] == np.eye(self.messages)).all())

    def decode(self, results: Any, tolerance: Any, erased: Any = None) -> Decoded:
        """The messages, and who was wrong.

        Args:
            results: shape (g, N, c), float32 or float64; what is NaN or infinite counts as erased.
            tolerance: shape (g, c): largest length of a clean column of the syndrome.
            erased: boolean, shape (g, N): nodes whose results are missing; their values are not looked at.
        """
        results = ops.cast(results, "float64")
        tolerance = ops.maximum(ops.cast(tolerance, "float64"), _SMALLEST)
        lost = ops.logical_not(ops.all(ops.isfinite(results), axis=-1))
        if erased is not None:
            lost = ops.logical_or(lost, erased)
        lost = ops.cast(lost, "float64")
        results = ops.where(lost[..., None] > 0, 0.0, results)
        weighted = ops.clip(results / tolerance[:, None, :], -_LARGEST, _LARGEST)  # every column's tolerance is 1
        wrong, verified = self._peel(weighted, lost)
        if self.supports:
            sure = ops.sum(wrong, axis=-1) <= self.redundancy // 2 + 0.5  # then no other set explains every column
            wrong, verified = ops.cond(
                ops.all(ops.logical_and(verified, sure)),
                lambda: (wrong, verified),
                lambda: self._search(weighted, lost, wrong, verified),
            )
        wrong = ops.cond(ops.any(wrong > lost), lambda: self._needed(weighted, lost, wrong), lambda: wrong)
        within = ops.sum(wrong, axis=-1) - ops.sum(lost, axis=-1) <= self.most_errors + 0.5
        enough = ops.sum(wrong, axis=-1) <= self.redundancy + 0.5
        verified = ops.logical_and(verified, ops.logical_and(within, enough))
        touched = ops.sum(wrong, axis=-1) > 0.5
        status = ops.where(verified, ops.where(touched, CORRECTED, CLEAN), UNCORRECTABLE)
        return Decoded(self._solve(results, wrong), wrong > 0.5, ops.cast(status, "int32"))

    def _peel(self, weighted: Any, lost: Any) -> tuple[Any, Any]:
        """Leave the nodes found out and look again, until nothing is left: weak errors drown beside strong ones."""

        def more(_wrong, verified):
            return ops.logical_not(ops.all(verified))

        def look(wrong, verified):
            found, clean = self._strongest(weighted, wrong)
            return ops.where(verified[:, None], wrong, found), ops.logical_or(verified, clean)

        start = (lost, self._explains(weighted, lost))
        return ops.while_loop(more, look, start, maximum_iterations=self.redundancy)

    def _needed(self, weighted: Any, lost: Any, wrong: Any) -> Any:
        """`wrong` less the nodes whose results agree with all others': errors that are alike can point at them, too."""
        right = ops.matmul(ops.convert_to_tensor(self.generator), self._solve(weighted, wrong))
        error = ops.max(ops.abs(weighted - right), axis=-1) * np.linalg.norm(self.checks, axis=0)
        fewer = ops.maximum(lost, wrong * ops.cast(error > 0.5, "float64"))
        return ops.where(self._explains(weighted, fewer)[:, None], fewer, wrong)

    def _strongest(self, weighted: Any, wrong: Any) -> tuple[Any, Any]:
        """One round: the nodes found besides `wrong`, and whether they explain every column."""
        checks, columns = self._project(weighted, wrong)
        gram, dirty = _gram(columns)
        values, vectors = ops.eigh(gram)  # ascending
        floor = ops.maximum(_NOISE * dirty, _FLOOR * values[:, -1])
        strong = ops.cast(values > floor[:, None], "float64")
        inside = ops.sum(ops.square(ops.matmul(ops.swapaxes(vectors, 1, 2), checks)) * strong[:, :, None], axis=1)
        length = ops.sum(ops.square(checks), axis=1)
        share = ops.where(wrong > 0, -1.0, inside / ops.maximum(length, 1e-30))  # 1 where a node explains them
        rank = ops.cast(ops.argsort(ops.argsort(-share, axis=-1), axis=-1), "float64")
        count = ops.sum(strong, axis=-1)
        possible = count < self.redundancy - ops.sum(wrong, axis=-1) - 0.5  # else any nodes would explain them
        sure = ops.logical_or(share > _SURE, rank < 0.5)  # weak errors that the floor cuts off pull others' share down
        chosen = ops.logical_and(rank < count[:, None], ops.logical_and(sure, possible[:, None]))
        chosen = ops.cast(chosen, "float64")
        found = ops.maximum(wrong, chosen)
        return found, self._explains(weighted, found)

    def _explains(self, weighted: Any, wrong: Any) -> Any:
        """Whether every column is clean once these nodes are left out."""
        return _gram(self._project(weighted, wrong)[1])[1] < 0.5

    def _search(self, weighted: Any, lost: Any, wrong: Any, verified: Any) -> tuple[Any, Any]:
        """The smallest set of nodes that explains every column, where errors depend on each other."""
        checks, columns = self._project(weighted, lost)
        gram, _ = _gram(columns, equally=True)
        for size in sorted(self.supports):
            best = ops.map(partial(self._best_support, size), (checks, gram))
            candidate = ops.maximum(lost, best)
            spare = ops.sum(candidate, axis=-1) + size <= self.redundancy + 0.5  # else another set explains it too
            explains = ops.logical_and(self._explains(weighted, candidate), spare)
            smaller = ops.sum(candidate, axis=-1) < ops.sum(wrong, axis=-1) - 0.5
            take = ops.logical_and(ops.logical_or(ops.logical_not(verified), smaller), explains)
            wrong = ops.where(take[:, None], candidate, wrong)
            verified = ops.logical_or(verified, take)
        return wrong, verified

    def _best_support(self, size: int, seen_by_checks: tuple[Any, Any]) -> Any:
        """Of all sets of `size` nodes, the one that leaves the least of the syndrome: shape (N,), 1 at its nodes."""
        (checks, gram), nodes = seen_by_checks, self.supports[size]
        chosen = ops.reshape(ops.take(ops.transpose(checks), nodes.reshape(-1), axis=0), (*nodes.shape, -1))
        among = ops.matmul(chosen, ops.swapaxes(chosen, 1, 2)) + 1e-13 * np.eye(size)
        seen = ops.matmul(ops.matmul(chosen, gram), ops.swapaxes(chosen, 1, 2))
        explained = ops.trace(ops.solve(among, seen), axis1=1, axis2=2)
        best = ops.take(ops.convert_to_tensor(nodes), ops.argmax(explained), axis=0)
        return ops.max(ops.cast(best[:, None] == np.arange(self.nodes), "float64"), axis=0)

    def _project(self, weighted: Any, wrong: Any) -> tuple[Any, Any]:
        """Checks and syndrome in the space that the nodes in `wrong` cannot reach."""
        checks = ops.convert_to_tensor(self.checks, "float64")
        gone = checks * wrong[:, None, :]
        values, vectors = ops.eigh(ops.matmul(gone, ops.swapaxes(gone, 1, 2)))
        free = vectors * ops.cast(values < 1e-12, "float64")[:, None, :]
        onto = ops.matmul(free, ops.swapaxes(free, 1, 2))
        checks = ops.matmul(onto, checks)
        return checks, ops.matmul(checks, ops.where(wrong[..., None] > 0, 0.0, weighted))

    def _solve(self, results: Any, wrong: Any) -> Any:
        """Least squares from the nodes that are left."""
        kept = (1.0 - wrong)[..., None] * self.generator
        left, values, right = ops.svd(kept, full_matrices=False)
        inverse = ops.where(values > 1e-12 * values[:, :1], 1.0 / ops.maximum(values, 1e-300), 0.0)
        seen = ops.matmul(ops.swapaxes(left, 1, 2), ops.where(wrong[..., None] > 0, 0.0, results))
        return ops.matmul(ops.swapaxes(right, 1, 2), inverse[..., None] * seen)


def _gram(columns: Any, *, equally: bool = False) -> tuple[Any, Any]:
    """``S S'`` of the dirty columns (each of length 1 with `equally`), and how many are dirty."""
    length = ops.sum(ops.square(columns), axis=1, keepdims=True)
    dirty = ops.cast(length > 1.0, "float64")
    counted = columns * (dirty * ops.rsqrt(ops.maximum(length, 1.0)) if equally else dirty)
    return ops.matmul(counted, ops.swapaxes(counted, 1, 2)), ops.sum(dirty, axis=(1, 2))


def _supports(nodes: int, most: int) -> dict[int, np.ndarray]:
    """Sets of each size up to `most`, as long as there are few enough to try."""
    total, found = 0, {}
    for size in range(1, most + 1):
        total += comb(nodes, size)
        if total > MOST_SUPPORTS:
            break
        found[size] = np.array(list(combinations(range(nodes), size)))
    return found
