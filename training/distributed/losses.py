"""What a Keras loss is called, and how it was set."""

from __future__ import annotations

from typing import Any

import keras


def loss_name(loss: Any) -> str:
    """Keras's name of a loss, however it was given: `mean_squared_error`, `categorical_crossentropy` and so on."""
    found = keras.losses.get(loss)
    name = str(getattr(found, "name", None) or getattr(found, "__name__", repr(loss)))
    return {"mse": "mean_squared_error"}.get(name, name)


def loss_option(loss: Any, name: str) -> Any:
    """An argument of a loss, such as `from_logits`; `None` where it has none."""
    found = keras.losses.get(loss)
    return found.get_config().get(name) if isinstance(found, keras.losses.Loss) else None
