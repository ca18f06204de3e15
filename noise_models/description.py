"""What makes a description of hardware an object that `keras.saving` writes and reads; Keras itself is not needed."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np


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


class Part(Description):
    """Base of the descriptions of the hardware's parts, of which anyone may add a kind.

    A class of this package is written as its `kind`, where there are several, and its arguments. Any other one is
    written as Keras writes an object, under the name by which it is registered, so it needs
    ``@keras.saving.register_keras_serializable(package=...)`` and no `kind`: one that it inherits never makes it
    another class. Arguments are numbers, strings, tuples of them and other descriptions; a class that has others
    overrides `get_config` and `from_config`.
    """

    kind: ClassVar[str] = ""
    _what: ClassVar[str] = "part"

    @property
    def label(self) -> str:
        """The class's own `kind`, or its name where it has none: what tables call it."""
        return self.kind if "kind" in vars(type(self)) else type(self).__name__

    def get_config(self) -> dict[str, Any]:
        """The arguments, JSON-able."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The object with the arguments that `get_config` gave.

        Raises:
            ValueError: for an argument that this class does not have.
        """
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        unknown = sorted(set(config) - {*names, "kind"})
        if unknown:
            kind = repr(cls.kind) if "kind" in vars(cls) else cls.__name__
            raise ValueError(f"A {cls._what} of kind {kind} has the entries {', '.join(names)}. Received: {unknown!r}")
        return cls(**{name: _hashable(value) for name, value in config.items() if name != "kind"})

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description; `from_dict` of its base class, such as `Memory.from_dict`, rebuilds an equal object.

        Raises:
            ValueError: for a class from outside of this package that Keras does not know.
        """
        if _is_built_in(type(self)):
            return {**({"kind": self.kind} if self.kind else {}), **self.get_config()}
        import keras

        name = type(self).__name__
        if keras.saving.get_registered_object(keras.saving.get_registered_name(type(self))) is not type(self):
            raise ValueError(
                f"{name} cannot be saved, since Keras does not know it. Put @keras.saving."
                "register_keras_serializable(package=...) above the class, with a name of your own for the package. "
                f"Received: {self!r}"
            )
        return keras.saving.serialize_keras_object(self)

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> Any:
        """The object that `to_dict` described.

        Raises:
            ValueError: for an unknown `kind`, a class that is not registered, or one that is no such part.
        """
        if "registered_name" in description:
            return _registered(description, cls)
        kinds = {each.kind: each for each in _family(cls) if each.kind and _is_built_in(each)}
        if not kinds or not _is_built_in(cls):
            return cls.from_config(description)
        kind = description.get("kind", cls.kind or None)
        if kind not in kinds:
            raise ValueError(f"A {cls._what}'s `kind` must be one of {', '.join(kinds)}. Received: kind={kind!r}")
        return kinds[kind].from_config(description)


def _registered(description: dict[str, Any], base: type[Part]) -> Any:
    import keras

    name = description["registered_name"]
    # Looked up first: Keras would import the module that a file names, to look for the class there.
    known = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    if known is None:
        raise ValueError(
            f"This {base._what} is of a class that is not registered here: import the module that defines it, under "
            "@keras.saving.register_keras_serializable, before reading this, or give it in custom_objects. "
            f"Received: registered_name={name!r}"
        )
    if not (isinstance(known, type) and issubclass(known, base)):
        raise ValueError(f"A {base._what} must be an axtrain {base.__name__}. Received: registered_name={name!r}")
    return keras.saving.deserialize_keras_object(description)


def _is_built_in(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


def _family(kind: type[Part]) -> list[type[Part]]:
    children: list[type[Part]] = kind.__subclasses__()
    return [kind, *(each for child in children for each in _family(child))]


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value


def _hashable(value: Any) -> Any:
    """Tuples again, which JSON has as lists."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
