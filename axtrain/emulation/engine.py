"""What an engine is, and the engines that there are.

An engine computes the exact int32 sums of products of a table. `register_engine` adds one; the choice among them
(`axtrain.emulation.selection`) asks each what it supports and what it costs, and nobody asks for its name.
"""

from __future__ import annotations

from typing import ClassVar

from axtrain.emulation.code_table import CodeTable

OPERATIONS = ("dense", "batched", "conv", "depthwise")


class Engine:
    """Exact sums of products of one table, for one way to compute them.

    A subclass sets `name` and `operations`, says where it runs (`obstacle`) and what it costs (`cost`), and has the
    method of each operation: `matmul`, `batched_matmul`, `conv`, `depthwise_conv`. One that can also quantise,
    rescale and add the bias in the same pass has `layer`, and says so by `fuses`.

    Args:
        table: the products over the codes in use.

    Attributes:
        name: by which `engine=` forces it.
        operations: of `"dense"`, `"batched"` (a second operand with batch axes of its own), `"conv"`, `"depthwise"`.
        fuses: whether `layer` computes a whole layer in one pass.
        requires: a module without which it cannot run, and `None` otherwise.
        without: what it costs not to have that module, in words.
    """

    name: ClassVar[str]
    operations: ClassVar[tuple[str, ...]] = OPERATIONS
    fuses: ClassVar[bool] = False
    requires: ClassVar[str | None] = None
    without: ClassVar[str] = ""

    def __init__(self, table: CodeTable) -> None:
        self.table = table

    def __repr__(self) -> str:
        rows, columns = self.table.products.shape
        return f"{type(self).__name__}(table={rows}x{columns})"

    @classmethod
    def supports(cls, operation: str, table: CodeTable, device: str, *, axes: int = 2) -> bool:
        """Whether it computes this product here and now.

        Args:
            operation: one of `OPERATIONS`.
            table: the products over the codes in use.
            device: `"cpu"` or `"accelerator"`.
            axes: spatial axes of a convolution.
        """
        return operation in cls.operations and cls.obstacle(table, device, axes=axes) is None

    @classmethod
    def obstacle(cls, table: CodeTable, device: str, *, axes: int = 2) -> str | None:
        """Why it cannot compute with this table here and now, in words; `None` where it can."""
        return None

    @classmethod
    def cost(cls, operation: str, table: CodeTable, device: str, *, terms: int | None = None) -> float:
        """About how many cycles of one core a product takes, on an accelerator in proportion.

        A float32 product takes about 1/16. Engines are compared by it.

        Args:
            operation, table, device: as for `supports`.
            terms: how many products one output sums; `None` is many.
        """
        raise TypeError(f"{cls.__name__} must say what a product costs: define the classmethod `cost`.")

    @classmethod
    def least_cost(cls, table: CodeTable) -> float:
        """Return a lower bound of `cost` over all products with this table, where one is known without much work."""
        return 0.0

    @property
    def description(self) -> str:
        """How it computes, in a word or two."""
        return self.name

    def matmul(self, activations, weights):
        """int32 ``sum_k T[a_mk, w_kn]`` for codes of shape (..., K) and (K, N)."""
        raise self._lacks("dense products")

    def batched_matmul(self, activations, weights):
        """int32 ``sum_k T[a_..mk, w_..kn]`` for codes of shape (..., M, K) and (..., K, N), the same batch axes."""
        raise self._lacks("batched products")

    def conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID convolution of codes (B, *space, C) with (*kernel, C, N)."""
        raise self._lacks("convolutions")

    def depthwise_conv(self, activations, weights, strides, dilation_rate):
        """int32 VALID depthwise convolution of codes (B, *space, C) with (*kernel, C, multiplier)."""
        raise self._lacks("depthwise convolutions")

    def layer(self, geometry, inputs, quantiser, weights, bias):
        """``s_a s_w (sum T[a, w] - z_a sum w) + bias``, float32, in one pass over memory.

        A value that is not finite gives NaN in the sums that it enters.

        Args:
            geometry: a `Dense` or `Convolution`.
            inputs: float32 activations.
            quantiser: the activations' `Quantiser`.
            weights: the weights' `Codes`.
            bias: float32, (N,), or `None`.
        """
        raise self._lacks("fused layers")

    def _lacks(self, what: str) -> ValueError:
        return ValueError(f"This engine has no {what}; engine=None chooses another. Received: engine={self.name!r}")


ENGINES: dict[str, type[Engine]] = {}


def register_engine(engine: type[Engine]) -> type[Engine]:
    """Adds an engine: it is then chosen wherever it is the cheapest that supports a product.

    Args:
        engine: a subclass of `Engine`.

    Returns:
        the class, so that it can stand as a decorator.

    Raises:
        TypeError: it is no subclass of `Engine`, or has no `cost`.
        ValueError: it has no name, or another engine has it.

    Examples:
        >>> from axtrain.emulation import Engine, register_engine
        >>> @register_engine
        ... class Loops(Engine):
        ...     name = "loops"
        ...     operations = ("dense",)
        ...
        ...     @classmethod
        ...     def cost(cls, operation, table, device, *, terms=None):
        ...         return 1000.0
        >>> from axtrain.emulation.engine import ENGINES
        >>> del ENGINES["loops"]
    """
    if not (isinstance(engine, type) and issubclass(engine, Engine)):
        raise TypeError(f"An engine is a subclass of axtrain.emulation.Engine. Received: {engine!r}")
    name = getattr(engine, "name", None)
    if not any("cost" in one.__dict__ for one in engine.__mro__ if one not in Engine.__mro__):
        raise TypeError(
            f"An engine says what a product costs: define the classmethod `cost`. Received: {engine.__name__}"
        )
    if not name or not isinstance(name, str):
        raise ValueError(f"An engine needs a `name`, a str. Received: {engine.__name__}.name={name!r}")
    if ENGINES.get(name, engine) is not engine:
        raise ValueError(f"An engine of that name is registered: {ENGINES[name].__name__}. Received: name={name!r}")
    ENGINES[name] = engine
    return engine
