"""What makes a description of hardware an object that `keras.saving` writes and reads; Keras itself is not needed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any


class Description:
    """Base of the frozen configurations: JSON-able there and back, by Keras's names for both ways as well.

    So a description may stand in the configuration of anyone's layer, callback or model:
    ``keras.saving.serialize_keras_object`` and ``deserialize_keras_object`` take it.
    """

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description; `from_dict` rebuilds an equal object."""
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> Any:
        """Rebuilds what `to_dict` gave."""
        return cls(**description)

    def get_config(self) -> dict[str, Any]:
        """`to_dict`, under the name by which Keras asks."""
        return self.to_dict()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """`from_dict`, under the name by which Keras asks."""
        return cls.from_dict(config)
