"""How strong a penalty must be to weigh as much as part of the loss: its own size says nothing a person could guess."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from axtrain.penalties import Penalty
from axtrain.running_state import state_kept
from axtrain.sensitivity_training import with_sensitivity
from axtrain.training.evaluation import sample_count
from axtrain.training.sensitivity.loss_choice import chosen_loss


def scaled_penalty(
    model: keras.Model, penalty: Penalty, x: Any, y: Any, *, share: float, loss: Any = None, batch_size: int = 32
) -> Penalty:
    """The same penalty, with the strength at which it is `share` times the loss at the model's weights.

    Squared sensitivities in squared weight steps differ by orders of magnitude from network to network; their share
    of the loss does not: 0.1 to 3 is the range to try. Measure on the hardware that is trained for.

    Args:
        model: from `convert`, or a plain one. It is not changed.
        penalty: what is to be scaled; its `strength` is replaced.
        x, y: a few hundred training samples and their labels.
        share: of the mean loss, >= 0.
        loss: a `keras.losses.Loss`, a name or a function; `None` is what the model was compiled with, else
            cross-entropy where the labels fit it.
        batch_size: as in training: the measured loss gradient of a larger batch is smaller.

    Returns:
        a penalty of the same class.

    Raises:
        ValueError: a share below 0, no samples, or a penalty that is 0 or not finite here.

    Examples:
        >>> import keras, numpy as np, axtrain as ax
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, activation="softmax")])
        >>> x, y = np.random.default_rng(0).random((64, 8), "float32"), np.arange(64) % 3
        >>> ax.scaled_penalty(model, ax.OutputSensitivity(1.0), x, y, share=0.5).strength > 0
        True
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < np.inf:
        raise ValueError(f"`share` must be a number >= 0. Received: share={share!r}")
    sample_count(x, y)
    measured = with_sensitivity(model, replace(penalty, strength=0.0, every=1))
    with state_kept(measured):
        outputs = measured.predict(keras.tree.map_structure(lambda array: array[:batch_size], x), verbose=0)
    chosen = chosen_loss(model, loss, outputs, y[:batch_size])
    measured.compile(keras.optimizers.SGD(0.0), chosen.per_sample)  # a rate of 0: it only looks
    logs = measured.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0).history
    size, whole = abs(logs["sensitivity"][0]), abs(logs["loss"][0])
    if not (np.isfinite(size) and np.isfinite(whole) and size > 0):
        raise ValueError(
            "A penalty of this size cannot be scaled to a share of the loss. Is the model trained, and are its "
            f"inputs in the range that it was trained on? Received: penalty {size:g}, loss {whole:g}"
        )
    return replace(penalty, strength=float(share * whole / size))
