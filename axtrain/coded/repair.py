"""From which other shards one is made anew: the code's own redundancy is the backup."""

from __future__ import annotations

import numpy as np

from axtrain.coded.code import Code


def recipe(code: Code, shard: int, available: np.ndarray) -> dict[int, float]:
    """From which other shards, with what weights, a shard is made anew; from as few as the code's structure allows.

    Args:
        code: of the layer.
        shard: the one wanted.
        available: boolean, shape (shards,): which others may be asked.

    Returns:
        for each shard to ask its weight; nothing where the others do not suffice.

    Examples:
        >>> import numpy as np
        >>> from axtrain.coded import Replication
        >>> recipe(Replication(3), 0, np.array([False, False, True]))
        {2: 1.0}
    """
    generator = np.einsum("pn,pm->pnm", code.right, code.left).reshape(code.shards, -1)
    others = np.array(available, bool)
    others[shard] = False
    same_inputs = (code.right == code.right[shard]).all(axis=1)
    same_outputs = (code.left == code.left[shard]).all(axis=1)
    for among in (same_inputs & same_outputs, same_inputs, same_outputs, np.ones_like(others)):
        asked = np.flatnonzero(among & others)
        if not len(asked):
            continue
        weights = np.linalg.lstsq(generator[asked].T, generator[shard], rcond=1e-9)[0]
        if np.allclose(weights @ generator[asked], generator[shard], atol=1e-8):
            return {int(q): float(w) for q, w in zip(asked, weights, strict=True) if abs(w) > 1e-12}
    return {}
