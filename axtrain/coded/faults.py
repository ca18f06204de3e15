"""What goes wrong on the machines that train: soft errors, per node and step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from axtrain.coded.latency import Latency

STAGES = ("forward", "backward", "update", "memory", "decode", "nonlinear")
KINDS = ("bit_flip", "multi_bit", "random", "scaled", "zeroed", "nan", "inf", "stuck", "dependent", "adversarial")
MIXTURE = {"bit_flip": 0.39, "multi_bit": 0.40, "random": 0.20, "nan": 0.005, "inf": 0.005}
"""Under 40 % of silent corruptions with flipped bits flip one; NaN and Inf are about 1 % (theory page, section 8)."""


@dataclass(frozen=True)
class SoftErrors:
    """In every step, each node errs in each stage with probability `rate`, on its own.

    What an error does to the node's results (a block of numbers, or its stored shard, or its update):

    - `bit_flip`: one bit of one float32 word; `multi_bit`: 2 to 8 bits of one word;
    - `random`: the whole block becomes other numbers of its usual size; `scaled`: it is multiplied by one factor
      between -4 and 4; `zeroed`: it becomes zero; `nan`, `inf`: one word does;
    - `stuck`: from its first error on, the node gives the same constant for ever;
    - `dependent`: all nodes that err in a stage add one and the same error;
    - `adversarial`: the nodes that err agree on the results of another message;
    - `mixture`: one of the first kinds for each error, as often as `MIXTURE` says.

    Args:
        rate: probability in [0, 1] that a node errs in a stage.
        where: any of `STAGES`. `memory` is the stored shards, between steps; `decode` and `nonlinear` are computed
            twice and compared, a third time where they differ.
        kind: one of `KINDS`, or `mixture`.
        seed: of all draws: the same seed gives the same errors.
        erasures: probability that a node's results never come.
        latency: how long nodes take; with `deadline`, results that come later are erased.
        deadline: in the latency's unit.

    Raises:
        ValueError: arguments out of range or unknown.

    Examples:
        >>> SoftErrors(rate=1e-2, where=("forward", "backward")).kind
        'mixture'
    """

    rate: float
    where: tuple[str, ...] = STAGES
    kind: str = "mixture"
    seed: int = 0
    erasures: float = 0.0
    latency: Latency | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        for name in ("rate", "erasures"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be a probability in [0, 1]. Received: {name}={value!r}")
        where = (self.where,) if isinstance(self.where, str) else tuple(self.where)
        unknown = [stage for stage in where if stage not in STAGES]
        if unknown:
            raise ValueError(f"`where` knows the stages {', '.join(STAGES)}. Received: {unknown[0]!r}")
        object.__setattr__(self, "where", where)
        if self.kind not in (*KINDS, "mixture"):
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)} or mixture. Received: kind={self.kind!r}")
        if (self.latency is None) != (self.deadline is None):
            raise ValueError(
                "A latency erases nodes that miss a deadline: give both or none. "
                f"Received: latency={self.latency!r}, deadline={self.deadline!r}"
            )

    @property
    def lost(self) -> float:
        """Probability that a node's results are missing: erased, or past the deadline."""
        late = 0.0
        if self.latency is not None and self.deadline is not None:
            late = 1.0 - self.latency.share_within(self.deadline)
        return 1.0 - (1.0 - self.erasures) * (1.0 - late)

    @property
    def seen_rate(self) -> float:
        """Probability that a node's result in one product is wrong: what an update or a memory spoiled shows there.

        Examples:
            >>> round(SoftErrors(rate=0.01, where=("forward", "update")).seen_rate, 4)
            0.0199
        """
        reaching = sum(stage in self.where for stage in ("update", "memory"))
        reaching += any(stage in self.where for stage in ("forward", "backward"))
        return 1.0 - (1.0 - self.rate) ** reaching

    def strikes(self, stage: str) -> bool:
        """Whether anything can go wrong in a stage."""
        missing = self.lost > 0 and stage in ("forward", "backward")
        return missing or (self.rate > 0 and stage in self.where)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, a latency as a Keras object."""
        import keras

        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        latency = keras.saving.serialize_keras_object(self.latency)
        return {**given, "where": list(self.where), "latency": latency}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SoftErrors:
        """`get_config` undone."""
        import keras

        latency = config["latency"]
        latency = keras.saving.deserialize_keras_object(latency) if isinstance(latency, dict) else latency
        return cls(**{**config, "where": tuple(config["where"]), "latency": latency})
