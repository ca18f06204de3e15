"""The multiplying circuits of a C program: a macro for each, over a table or `*`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from axtrain.integers.c_code.text import comment
from axtrain.integers.network import IntegerNetwork, Product

MACRO = "AXTRAIN_MULTIPLY"


@dataclass(frozen=True, kw_only=True, eq=False)
class Circuit:
    """A multiplying circuit of the program.

    Attributes:
        macro: of C, which a user may define otherwise.
        table: the array that the macro reads; `""` where it multiplies.
        products: int32 (256, 256), or `None` for the exact circuit.
        text: C: the macro's comment and definition.
    """

    macro: str
    table: str
    products: np.ndarray | None
    text: str


def circuits(network: IntegerNetwork, prefix: str) -> dict[str, Circuit]:
    """The circuit of each product, by the name of the tensor that it writes; products of one table share theirs."""
    products = [operation for operation in network.operations if isinstance(operation, Product)]
    # By what the table holds: an equal table may be another array.
    keys = {product.output: b"" if product.table is None else product.table.tobytes() for product in products}
    tables = {key: np.frombuffer(key, np.int32).reshape(256, 256) if key else None for key in keys.values()}
    found: dict[bytes, Circuit] = {}
    for product in products:
        key = keys[product.output]
        if key not in found:
            number = f"_{len(found) + 1}" if len(tables) > 1 else ""
            found[key] = _circuit(product, tables[key], MACRO + number, f"{prefix}_products{number}")
    return {name: found[key] for name, key in keys.items()}


def _circuit(product: Product, products: np.ndarray | None, macro: str, table: str) -> Circuit:
    if products is None:
        what, body, table = "exact", "((int32_t)(a) * (int32_t)(w))", ""
    else:
        what = "a table" if product.multiplier is None else product.multiplier.name
        body = f"((int32_t){table}[((int32_t)(a) + 128) * 256 + (int32_t)(w) + 128])"
    about = [comment(f"The multiplier: {what}. a: activation code, w: weight code, both -128 to 127; int32_t result.")]
    about += [comment(line) for line in _of_words(product, products)]
    text = "\n".join([*about, f"#ifndef {macro}", f"#define {macro}(a, w) {body}", "#endif"])
    return Circuit(macro=macro, table=table, products=products, text=text)


def _of_words(product: Product, products: np.ndarray | None) -> list[str]:
    """How the macro's product comes from the words of an unsigned circuit, where it does."""
    circuit = product.multiplier
    if products is None or circuit is None or circuit.signed or circuit.table.shape != (256, 256):
        return []
    codes = np.arange(-128, 128)
    wanted = np.sign(codes) * circuit.table[:, np.abs(codes)] - 128 * codes
    if not np.array_equal(wanted[:, 1:], products[:, 1:]):  # weights are -127 to 127
        return []
    return ["The circuit M takes unsigned words: the product is sign(w) M(a + 128, |w|) - 128 w."]
