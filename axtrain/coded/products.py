"""One coded product, checked and decoded: what a layer calls forward and backward."""

from __future__ import annotations

from typing import Any

from keras import ops

from axtrain.coded.checks import Found, nothing_found
from axtrain.coded.checksum import Checksum, ChecksumLayout
from axtrain.coded.code import Code
from axtrain.coded.grids import GridCode
from axtrain.coded.layouts import Corrupt, MatrixLayout, ShardLayout

_LAYOUTS: tuple[tuple[type[Code], type[ShardLayout]], ...] = (
    (Checksum, ChecksumLayout),
    (GridCode, MatrixLayout),
    (Code, ShardLayout),
)


def layout(code: Code, inputs: int, outputs: int) -> Any:
    """The fastest layout for a code."""
    return next(kind for codes, kind in _LAYOUTS if isinstance(code, codes))(code, inputs, outputs)


class CodedProduct:
    """The products of a layer with a coded kernel.

    Args:
        code: how.
        inputs, outputs: of the kernel.
        adversarial: trust only corrections that are right whatever the errors are.
    """

    def __init__(self, code: Code, inputs: int, outputs: int, *, adversarial: bool = False) -> None:
        self.code = code
        self.layout = layout(code, inputs, outputs)
        self._checks = self.layout.checks(adversarial)

    def forward(self, coded: Any, x: Any, corrupt: Corrupt | None = None) -> tuple[Any, Found]:
        """``x W`` for x of shape (batch, inputs), and what its check said."""
        return self._decoded(self.layout.forward(coded, x, corrupt), coded, x, "forward")

    def backward(self, coded: Any, delta: Any, corrupt: Corrupt | None = None) -> tuple[Any, Found]:
        """``delta W'`` for delta of shape (batch, outputs), and what its check said."""
        return self._decoded(self.layout.backward(coded, delta, corrupt), coded, delta, "backward")

    def _decoded(self, results: Any, coded: Any, operand: Any, name: str) -> tuple[Any, Found]:
        check = self._checks[name]
        if not check.sees:
            return check.value(results), nothing_found(check.stage)
        is_clean, value = check.quick(results)
        return ops.cond(
            is_clean,
            lambda: (value, nothing_found(check.stage)),
            lambda: check.corrected(results, self.layout, coded, operand),
        )
