"""`write_c`: a network as C99: a header of its integers, an inference function without floats, an example program."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from axtrain.integers.c_code.arithmetic import CLAMPED, REQUANTISED, REQUANTISED_ONCE, SOFTMAX
from axtrain.integers.c_code.buffers import Buffers, planned
from axtrain.integers.c_code.multipliers import Circuit, circuits
from axtrain.integers.c_code.operations import operation_function
from axtrain.integers.c_code.products import product_data, product_function
from axtrain.integers.c_code.program import example_program
from axtrain.integers.c_code.text import array, comment, identifier, identifiers, shape_text
from axtrain.integers.network import Addition, IntegerNetwork, Operation, Product, Rescale, Reshape, Softmax
from axtrain.noise_models.files import write_whole

_MARK = b"ritten by axtrain"  # in the first comment of each file


def write(model: Any, network: IntegerNetwork, folder: str | os.PathLike[str]) -> None:
    """`write_c` as `axtrain.export` calls it: the model is not looked at."""
    write_c(network, folder)


def write_c(network: IntegerNetwork, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Writes NAME.h, NAME.c and NAME_test.c, NAME being the network's as a C identifier.

    - `NAME.h` needs nothing but stdint.h: sizes, scales and zero points as macros, and, unless NAME_NO_DATA is
      defined, the int8 weights, int32 sums' starts, requantisation constants and the multiplier's table.
    - `NAME.c` is `void NAME_run(const int8_t *input, int8_t *output)`: int32 sums, LiteRT's roundings, no float, no
      malloc; one static block of NAME_RAM_BYTES that tensors use in turn. Products are the macro
      `AXTRAIN_MULTIPLY(a, w)` (numbered where layers have several circuits): a look-up, or `*` where exact. Define
      it beforehand to plug in a model of a circuit.
    - `NAME_test.c` reads input codes from a file and writes output codes.

    The output is that of `network.run`, code for code. Needs C99 with int32_t and int8_t.

    Args:
        network: from `axtrain.integer_network`.
        folder: where to write; made if absent.

    Returns:
        the three paths.

    Raises:
        ValueError: a network without operations, a sum that may not fit 32 bits, a softmax over more than 4,095
            classes.
        FileExistsError: a file of one of these names lies there that axtrain did not write.

    Examples:
        >>> import tempfile, numpy as np
        >>> from axtrain.integers.network import IntegerNetwork, Product, Tensor
        >>> one = np.ones(1, np.int32)
        >>> product = Product(name="out", inputs=("x",), output="y", kind="dense", codes=np.ones((2, 1), np.int8),
        ...                   weight_scale=np.ones(1, np.float32), bias=one, factor=one << 30, shift=one)
        >>> tensors = {"x": Tensor(name="x", shape=(2,), scale=1.0, zero_point=0),
        ...            "y": Tensor(name="y", shape=(1,), scale=1.0, zero_point=0)}
        >>> network = IntegerNetwork(name="sum", tensors=tensors, operations=(product,), input="x", output="y")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_c(network, folder)]
        ['sum.h', 'sum.c', 'sum_test.c']
    """
    if not network.operations:
        raise ValueError(f"A network without operations computes nothing. Received: {network.name!r}")
    name, buffers = identifier(network.name), planned(network)
    parts = {operation.output: f"{name}_{part}" for operation, part in _parts(network)}
    by_product = circuits(network, name)
    texts = {
        f"{name}.h": _header(network, name, buffers, parts, by_product),
        f"{name}.c": _source(network, name, buffers, parts, by_product),
        f"{name}_test.c": example_program(name),
    }
    folder = Path(folder)
    others = [file for file in texts if (folder / file).exists() and _MARK not in (folder / file).read_bytes()[:4096]]
    if others:
        raise FileExistsError(
            "Not overwriting files that axtrain did not write; choose another folder, or rename the model. "
            f"Received: {folder} with {', '.join(others)}"
        )
    for file, text in texts.items():
        write_whole(folder / file, text.encode("ascii"))
    return tuple(folder / file for file in texts)


def _parts(network: IntegerNetwork) -> list[tuple[Operation, str]]:
    names = identifiers(operation.output for operation in network.operations)
    return [(operation, names[operation.output]) for operation in network.operations]


def _header(
    network: IntegerNetwork, name: str, buffers: Buffers, parts: dict[str, str], by_product: dict[str, Circuit]
) -> str:
    upper = name.upper()
    lines = [
        comment(f"The network {network.name!r} in integers alone, written by axtrain."),
        f"/*\n * {name}_run(input, output) takes {upper}_INPUT_SIZE codes and gives {upper}_OUTPUT_SIZE codes:",
        " *   code = round(value / SCALE) + ZERO_POINT, kept within -128 to 127;",
        " *   value = (code - ZERO_POINT) * SCALE.",
        " * Images lie row by row, the channels of a pixel together. The arrays must not overlap; the function keeps",
        " * its tensors in a static block, so one call runs at a time.",
        *_plugging_in(name, by_product),
        f" * Define {upper}_NO_DATA before including this file for the macros and the function alone.\n */",
        f"#ifndef {upper}_H\n#define {upper}_H\n\n#include <stdint.h>\n",
    ]
    for end in ("input", "output"):
        tensor, prefix = network.tensors[getattr(network, end)], f"{upper}_{end.upper()}"
        lines += [
            comment(f"{end}: {tensor.name}, {shape_text(tensor.shape)}"),
            f"#define {prefix}_SIZE {math.prod(tensor.shape)}",
            *(f"#define {prefix}_AXIS_{axis} {size}" for axis, size in enumerate(tensor.shape)),
            f"#define {prefix}_SCALE {_float(tensor.scale)}",
            f"#define {prefix}_ZERO_POINT ({tensor.zero_point})\n",
        ]
    lines += [
        "/* the static block: bytes of the tensors in between, and int32_t sums of one layer's channels */",
        f"#define {upper}_TENSOR_BYTES {buffers.size}",
        f"#define {upper}_SUMS {_sums(network)}",
        f"#define {upper}_RAM_BYTES ({upper}_TENSOR_BYTES + 4 * {upper}_SUMS)",
        "/* bytes of the weights */",
        f"#define {upper}_WEIGHT_BYTES {sum(op.codes.size for op in network.operations if isinstance(op, Product))}\n",
        '#ifdef __cplusplus\nextern "C" {\n#endif',
        f"void {name}_run(const int8_t *input, int8_t *output);",
        f"#ifdef __cplusplus\n}}\n#endif\n\n#ifndef {upper}_NO_DATA\n",
    ]
    for operation in network.operations:
        if isinstance(operation, Product):
            lines.append(product_data(operation, network, parts[operation.output]))
    for circuit in {circuit.macro: circuit for circuit in by_product.values()}.values():
        if circuit.products is not None:
            lines += [
                comment("products[(a + 128) * 256 + w + 128] of activation code a and weight code w"),
                f"#ifndef {circuit.macro}",
                array(circuit.table, circuit.products) + "#endif\n",
            ]
    lines.append(f"#endif /* {upper}_NO_DATA */\n#endif /* {upper}_H */\n")
    return "\n".join(lines)


def _plugging_in(name: str, by_product: dict[str, Circuit]) -> list[str]:
    macros = sorted({circuit.macro for circuit in by_product.values()})
    if not macros:
        return []
    lines = [f"Define {', '.join(macros)} before compiling {name}.c to compute products (int32_t, of two"]
    lines.append("int8_t codes a, w) by a function of your own, such as a model of the circuit.")
    return [f" * {line}" for line in lines]


def _source(
    network: IntegerNetwork, name: str, buffers: Buffers, parts: dict[str, str], by_product: dict[str, Circuit]
) -> str:
    operations = [op for op in network.operations if not _shares_its_bytes(op, buffers)]
    texts = [
        comment(f"The network {network.name!r}: integers alone, written by axtrain. See {name}.h."),
        f'#include "{name}.h"\n',
        *{circuit.macro: f"{circuit.text}\n" for circuit in by_product.values()}.values(),
    ]
    if buffers.size:
        texts.append(f"static int8_t memory[{name.upper()}_TENSOR_BYTES];")
    if _sums(network):
        texts.append(f"static int32_t sums[{name.upper()}_SUMS];\n")
    roundings = {op.roundings for op in operations if isinstance(op, Product)}
    if 2 in roundings or any(isinstance(op, (Softmax, Addition, Rescale)) for op in operations):
        texts.append(REQUANTISED)
    if 1 in roundings:
        texts.append(REQUANTISED_ONCE)
    if not all(type(op).__name__ in ("Pad", "Reshape") for op in operations):
        texts.append(CLAMPED)
    if any(isinstance(op, Softmax) for op in operations):
        texts.append(SOFTMAX)
    calls = []
    for operation in operations:
        data = parts[operation.output]
        function = f"run_{data.removeprefix(f'{name}_')}"
        texts.append(comment(_described(operation, network)))
        if isinstance(operation, Product):
            macro = by_product[operation.output].macro
            texts.append(product_function(operation, network, function, data, macro))
        else:
            texts.append(operation_function(operation, network, function))
        places = [buffers.places[tensor] for tensor in (*operation.inputs, operation.output)]
        arguments = [place if isinstance(place, str) else f"memory + {place}" for place in places]
        calls.append(f"    {function}({', '.join(arguments)});")
    texts.append(f"void {name}_run(const int8_t *input, int8_t *output)\n{{\n" + "\n".join(calls) + "\n}\n")
    return "\n".join(texts)


def _sums(network: IntegerNetwork) -> int:
    """How many sums the widest product holds at a time."""
    return max((operation.bias.size for operation in network.operations if isinstance(operation, Product)), default=0)


def _shares_its_bytes(operation: Operation, buffers: Buffers) -> bool:
    """Whether a reshape's output is its input, so that nothing is to be done."""
    source, target = buffers.places[operation.inputs[0]], buffers.places[operation.output]
    return isinstance(operation, Reshape) and source == target


def _described(operation: Operation, network: IntegerNetwork) -> str:
    kind = operation.kind if hasattr(operation, "kind") else type(operation).__name__.lower()
    shapes = " and ".join(shape_text(network.tensors[name].shape) for name in operation.inputs)
    return f"{operation.output}: {kind}, {shapes} to {shape_text(network.tensors[operation.output].shape)}"


def _float(value: float) -> str:
    """A C float of nine digits, which name every float32."""
    return f"{value:.9e}f"
