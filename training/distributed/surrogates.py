"""What an agent minimises in a step in the place of everybody's loss: convex, and near it around the present weights.

With g the agent's own loss, ``w~ = argmin g~(w; w_i) + pi'(w - w_i) + r(w)``. `full` linearises g; `partial` linearises
the network inside the loss. Sources: Scardapane and Di Lorenzo 2017; Di Lorenzo and Scutari 2016; theory page,
section 10.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

SURROGATES = ("full", "partial", "descent")
NEWTON_STEPS = 4


@dataclass(frozen=True)
class Penalty:
    """The regularizer r.

    Args:
        kind: `l2`, ``strength |w|^2``; `l1`, ``strength |w|_1``; `none`.
        strength: lambda.
    """

    kind: str = "none"
    strength: float = 0.0

    @property
    def curvature(self) -> float:
        """Of the quadratic part: ``2 lambda``."""
        return 2 * self.strength if self.kind == "l2" else 0.0

    def value(self, w: np.ndarray) -> float:
        """r(w)."""
        if self.kind == "l1":
            return self.strength * float(np.abs(w).sum())
        return self.strength * float(w @ w) if self.kind == "l2" else 0.0

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """Of r, any subgradient where there are several."""
        return self.strength * np.sign(w) if self.kind == "l1" else self.curvature * w

    def nearest(self, w: np.ndarray, stiffness: float) -> np.ndarray:
        """``argmin stiffness/2 |v - w|^2 + lambda |v|_1``: soft thresholding; w itself for other kinds."""
        if self.kind != "l1":
            return w
        return np.sign(w) * np.maximum(np.abs(w) - self.strength / stiffness, 0.0)


def full(w: np.ndarray, gradient: np.ndarray, others: np.ndarray, tau: float, penalty: Penalty) -> np.ndarray:
    """The loss linearised: a gradient step of length 1/tau, in closed form with the penalty.

    Args:
        w: present weights.
        gradient: of the agent's own loss there.
        others: pi, of all others' losses, as far as the agent knows.
        tau: of the proximal term ``tau/2 |v - w|^2``.
        penalty: r.
    """
    found = (tau * w - gradient - others) / (tau + penalty.curvature)
    return penalty.nearest(found, tau)


def partial_squares(
    w: np.ndarray, outputs: np.ndarray, targets: np.ndarray, jacobian: np.ndarray, others: np.ndarray, tau: float,
    penalty: Penalty, scale: float,
) -> np.ndarray:  # fmt: skip
    """The network linearised inside a squared loss ``scale |d - f|^2``: one linear system.

    ``(2 s J'J + (tau + 2 lambda) I) w~ = 2 s J'(d - f + J w) + tau w - pi``; with an L1 penalty by proximal steps.

    Args:
        outputs, targets: f and d, one after another.
        jacobian: J, shape (outputs, weights).
        scale: s.
    """
    matrix = 2 * scale * jacobian.T @ jacobian
    right = 2 * scale * jacobian.T @ (targets - outputs + jacobian @ w) + tau * w - others
    if penalty.kind != "l1":
        return np.linalg.solve(matrix + (tau + penalty.curvature) * np.eye(len(w)), right)
    matrix = matrix + tau * np.eye(len(w))
    return _proximal(matrix, right, w, penalty)


def partial_entropy(
    w: np.ndarray, logits: np.ndarray, targets: np.ndarray, jacobian: np.ndarray, others: np.ndarray, tau: float,
    penalty: Penalty, scale: float,
) -> np.ndarray:  # fmt: skip
    """The network linearised inside a cross-entropy of logits: a few Newton steps.

    Args:
        logits, targets: shape (samples, classes).
        jacobian: of the logits, shape (samples * classes, weights).
        scale: of the sum over samples.
    """
    found = w.copy()
    classes = logits.shape[1]
    for _ in range(NEWTON_STEPS):
        ahead = logits + (jacobian @ (found - w)).reshape(logits.shape)
        shares = np.exp(ahead - ahead.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        slope = scale * jacobian.T @ (shares - targets).reshape(-1) + others + tau * (found - w)
        curved = shares[:, :, None] * np.eye(classes) - shares[:, :, None] * shares[:, None, :]
        bent = curved @ jacobian.reshape(len(logits), classes, -1)
        matrix = scale * jacobian.T @ bent.reshape(jacobian.shape) + (tau + penalty.curvature) * np.eye(len(w))
        if penalty.kind == "l1":
            found = _proximal(matrix, matrix @ found - slope, found, penalty)
        else:
            found = found - np.linalg.solve(matrix, slope + penalty.gradient(found))
    return found


def in_blocks(solve: Callable[[np.ndarray], np.ndarray], count: int, blocks: int) -> np.ndarray:
    """Blocks of the weights solved side by side, the others frozen.

    Args:
        solve: for the places of a block its new weights.
        count: weights in all.
        blocks: C; each on a thread.
    """
    places = np.array_split(np.arange(count), blocks)
    if blocks == 1:
        return solve(places[0])
    with ThreadPoolExecutor(blocks) as pool:
        return np.concatenate(list(pool.map(solve, places)))


def _proximal(
    matrix: np.ndarray, right: np.ndarray, start: np.ndarray, penalty: Penalty, steps: int = 200
) -> np.ndarray:
    """``argmin v'A v/2 - b'v + lambda |v|_1`` by accelerated proximal gradient steps."""
    stiffness = float(np.linalg.eigvalsh(matrix)[-1])
    found = ahead = start
    momentum = 1.0
    for _ in range(steps):
        new = penalty.nearest(ahead - (matrix @ ahead - right) / stiffness, stiffness)
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / grown * (new - found)
        if np.abs(new - found).max() < 1e-12:
            return new
        found, momentum = new, grown
    return found
