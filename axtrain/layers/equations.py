"""An einsum equation as one matrix product: which axes are the batch's, rows, summed over, and columns."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

from keras import ops


@dataclass(frozen=True)
class EinsumProduct:
    """``output[batch, rows, columns] = sum first[batch, rows, summed] second[batch, summed, columns]``.

    Args:
        first, second, output: one letter per axis; `"."` in `first` and `output` stands for any number of rows.
    """

    first: str
    second: str
    output: str

    @classmethod
    def parse(cls, equation: str) -> EinsumProduct:
        """Reads `"abc,cd->abd"` or `"...c,cd->...d"`.

        Raises:
            ValueError: axes that no matrix product has: repeated in an operand, or summed out of one alone.
        """
        compact = equation.replace(" ", "").replace("...", ".")
        operands, _, output = compact.partition("->")
        first, _, second = operands.partition(",")
        product = cls(first, second, output)
        for operand in (first, second, output):
            if len(set(operand)) < len(operand):
                raise ValueError(f"the equation {equation!r} repeats an axis in {operand!r}")
        for operand, other in ((first, second), (second, first)):
            alone = set(operand) - set(other) - set(output)
            if alone:
                raise ValueError(f"the equation {equation!r} sums {sorted(alone)} out of {operand!r} alone")
        if not product.summed:
            raise ValueError(f"the equation {equation!r} sums no product: its operands share no axis that is summed")
        return product

    @property
    def batch(self) -> str:
        """Axes of both operands and the output."""
        return "".join(axis for axis in self.first if axis in self.second and axis in self.output)

    @property
    def rows(self) -> str:
        """Axes of the first operand and the output."""
        return "".join(axis for axis in self.first if axis not in self.second)

    @property
    def summed(self) -> str:
        """Axes of both operands, in the order of the second."""
        return "".join(axis for axis in self.second if axis in self.first and axis not in self.output)

    @property
    def columns(self) -> str:
        """Axes of the second operand and the output, in the order of the second."""
        return "".join(axis for axis in self.second if axis not in self.first)

    def of_rank(self, rank: int) -> EinsumProduct:
        """The equation for a first operand of that rank, `"."` written out."""
        if "." not in self.first:
            return self
        unused = [c for c in string.ascii_letters if c not in self.first + self.second]
        written = "".join(unused[: rank - len(self.first) + 1])
        return EinsumProduct(self.first.replace(".", written), self.second, self.output.replace(".", written))

    def first_matrix(self, values):
        """(*batch, rows, summed) of the first operand, several axes merged into one."""
        return _arranged(values, self.first, [*self.batch, self.rows, self.summed])

    def second_matrix(self, values):
        """(*batch, summed, columns) of the second operand."""
        return _arranged(values, self.second, [*self.batch, self.summed, self.columns])

    def restored(self, matrix, first_shape: Sequence, second_shape: Sequence):
        """The output from (*batch, rows, columns).

        Args:
            matrix: the product of both matrices.
            first_shape, second_shape: the operands' own shapes, ints or scalar tensors.
        """
        sizes = {**dict(zip(self.second, second_shape, strict=True)), **dict(zip(self.first, first_shape, strict=True))}
        axes = self.batch + self.rows + self.columns
        separate = ops.reshape(matrix, [sizes[axis] for axis in axes])
        return ops.transpose(separate, [axes.index(axis) for axis in self.output])


def _arranged(values, axes: str, groups: Sequence[str]):
    """Axes in another order, each group of them merged."""
    sizes = dict(zip(axes, ops.shape(values), strict=True))
    values = ops.transpose(values, [axes.index(axis) for group in groups for axis in group])
    return ops.reshape(values, [math.prod(sizes[axis] for axis in group) for group in groups])


def equation_obstacle(equation: str) -> str | None:
    """Why an equation of inputs and kernel is not one matrix product; `None` where it is."""
    try:
        product = EinsumProduct.parse(equation)
    except ValueError as error:
        return str(error)
    if product.batch:
        return f"the equation {equation!r} gives the kernel the batch axes {list(product.batch)}"
    return None
