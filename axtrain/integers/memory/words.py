"""The weights of a network as they lie in a memory: codes, words, cells.

Cell c of a memory is bit ``c mod width`` of its row ``c div width``; a stored word of n cells at address i takes the
cells ``i n .. i n + n - 1``, its lowest bit first, as in `axtrain.noise_models.measured.MeasuredMemory`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from axtrain.integers.network import IntegerNetwork, Product
from axtrain.noise_models.encodings import code_range, decode, encode
from axtrain.noise_models.protections import Protection


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightBlock:
    """The weights of one product.

    Attributes:
        name: `LAYER`, or `LAYER/PRODUCT` where a layer has several; `LAYER` is a path, as in `left/proj`, where
            another layer bears the name too.
        codes: integers, in the shape of the kernel; they are stored in C order, the last axis fastest.
        scale: real value of one code step, float32, one for each output channel.
        address: of its first code in the memory in codes, as chips number them (`axtrain.convert` lays it out).
    """

    name: str
    codes: np.ndarray
    scale: np.ndarray
    address: int


@dataclass(frozen=True, kw_only=True)
class WordFormat:
    """How a code is stored.

    Attributes:
        bits: of a code, 2 to 16.
        encoding: `"twos_complement"`, `"sign_magnitude"` or `"offset"`.
        protection: of `axtrain.noise_models.protections`.
    """

    bits: int = 8
    encoding: str = "twos_complement"
    protection: Protection = field(default_factory=Protection)

    def __post_init__(self) -> None:
        if self.encoding == "unsigned":
            raise ValueError(
                "Weights are signed; use encoding='twos_complement', 'sign_magnitude' or 'offset'. Received: 'unsigned'"
            )
        code_range(self.bits, self.encoding)
        if self.encoding not in self.protection.encodings:
            raise ValueError(
                f"{type(self.protection).__name__} needs one of the encodings {', '.join(self.protection.encodings)}. "
                f"Received: encoding={self.encoding!r}"
            )

    @property
    def cells(self) -> int:
        """Cells of a stored word."""
        return self.protection.width(self.bits)

    def stored(self, codes: np.ndarray) -> np.ndarray:
        """int32 stored words of codes, in the order of their addresses: one a code, or with words of check bits.

        Raises:
            ValueError: codes that the encoding cannot represent.
        """
        low, high = code_range(self.bits, self.encoding)
        if codes.size and not low <= codes.min() <= codes.max() <= high:
            raise ValueError(
                f"Codes must be {low} to {high} ({self.bits} bits, {self.encoding}). Received: codes from "
                f"{codes.min()} to {codes.max()}"
            )
        words = np.asarray(encode(codes.reshape(1, -1), self.bits, self.encoding))
        return np.asarray(self.protection.store(words, self.bits)).reshape(-1)

    def stored_count(self, count: int) -> int:
        """How many words are stored for so many codes."""
        return len(self.stored(np.zeros(count, np.int32)))

    def read(self, stored: np.ndarray, count: int) -> np.ndarray:
        """int32 codes of stored words, as the protection's decoder gives them.

        Args:
            stored: as `stored` gives them, bits turned perhaps.
            count: of the codes.
        """
        shape = np.asarray(self.protection.store(np.zeros((1, count), np.int32), self.bits)).shape
        read, blank = stored.reshape(shape).astype(np.int32), np.zeros((1, count), np.int32)
        words = self.protection.recover(read, read, blank, self.bits, self.encoding)
        return np.asarray(decode(words, self.bits, self.encoding)).reshape(-1)


def cells_of(words: np.ndarray, cells: int) -> np.ndarray:
    """uint8 zeros and ones of stored words one after another, each lowest bit first."""
    return (words.astype(np.int64)[:, None] >> np.arange(cells) & 1).astype(np.uint8).reshape(-1)


def model_blocks(model: Any) -> Iterator[WeightBlock]:
    """The weights of a converted model as its layers store them, addresses as its chips number them.

    Raises:
        ValueError: weights that are not finite.
    """
    return (block for _, block in _layer_blocks(model))


def _layer_blocks(model: Any) -> Iterator[tuple[str, WeightBlock]]:
    """What the layer of each block is known by, and the block."""
    from keras import ops

    from axtrain.controls import hardware_layers
    from axtrain.finite import check_finite
    from axtrain.model_walk import labels

    told = labels(model)
    for layer in hardware_layers(model):
        label = told[id(layer)]
        for name, product in zip(layer.product_names, layer.products, strict=True):
            if product.kernel is None:
                continue
            kernel = ops.convert_to_tensor(check_finite(f"layer {label!r}", product.kernel))
            weights = product.state.hardware.weight_codes(kernel, product.geometry.summed_axes(len(kernel.shape)))
            block = WeightBlock(
                name=f"{label}/{name}" if name else label,
                codes=ops.convert_to_numpy(weights.codes).astype(np.int32),
                scale=ops.convert_to_numpy(weights.scale).reshape(-1).astype(np.float32),
                address=product.state.address,
            )
            yield label, block


def network_blocks(network: IntegerNetwork, model: Any = None) -> list[WeightBlock]:
    """The weights of an integer network, in the order and at the addresses of the model that it was made from.

    Without a model, and where its layers are not the network's, they lie one after another.
    """
    products = [operation for operation in network.operations if isinstance(operation, Product)]
    layers = [product.name for product in products]
    known = [] if model is None else list(_layer_blocks(model))
    blocks, address = [], 0
    for index, product in enumerate(products):
        several = layers.count(product.name) > 1
        name = f"{product.name}/{layers[:index].count(product.name) + 1}" if several else product.name
        codes = product.codes.astype(np.int32)
        blocks.append(WeightBlock(name=name, codes=codes, scale=product.weight_scale, address=address))
        address += codes.size
    by_layer = sorted(range(len(products)), key=lambda index: _place(layers[index], known))
    if [(layers[i], blocks[i].codes.size) for i in by_layer] != [(name, block.codes.size) for name, block in known]:
        return blocks
    return [replace(blocks[i], address=block.address) for i, (_, block) in zip(by_layer, known, strict=True)]


def _place(layer: str, known: list[tuple[str, WeightBlock]]) -> int:
    return next((index for index, (name, _) in enumerate(known) if name == layer), len(known))


def model_format(model: Any) -> WordFormat:
    """How a converted model's weight memory stores its words; plain 8-bit words where it has none.

    Raises:
        ValueError: layers whose words differ.
    """
    from axtrain.controls import hardware_layers

    formats: dict[WordFormat, list[str]] = {}
    bits: dict[int, list[str]] = {}
    for layer in hardware_layers(model):
        memory, width = layer.hardware.weight_memory, layer.hardware.weight_bits
        bits.setdefault(width, []).append(layer.name)
        if memory is not None:
            protection = memory.protection or Protection()
            found = WordFormat(bits=width, encoding=memory.encoding, protection=protection)
            formats.setdefault(found, []).append(layer.name)
    if len(bits) > 1 or len(formats) > 1:
        raise ValueError(
            "An image is of one memory, so all layers must store words of one width, encoding and protection; "
            "convert the model with one weight_memory and one weight_bits. Received: "
            f"{[*bits.items()] if len(bits) > 1 else _listed(formats)}"
        )
    return next(iter(formats), WordFormat(bits=next(iter(bits), 8)))


def _listed(formats: dict[WordFormat, list[str]]) -> str:
    return "; ".join(
        f"{names[0]!r}: {found.encoding}, protection {found.protection.label}" for found, names in formats.items()
    )


def places(blocks: Sequence[WeightBlock], form: WordFormat) -> list[int]:
    """First stored word of each block: its address, or, where check bits or copies take words, one after another.

    Raises:
        ValueError: blocks that overlap.
    """
    counts = [form.stored_count(block.codes.size) for block in blocks]
    if any(count != block.codes.size for count, block in zip(counts, blocks, strict=True)):
        return [sum(counts[:index]) for index in range(len(blocks))]
    for one, other in pairwise(sorted(blocks, key=lambda block: block.address)):
        if one.address + one.codes.size > other.address:
            raise ValueError(
                "Two layers lie at one address; axtrain.convert lays a model's layers out one after another. "
                f"Received: {one.name!r} at {one.address}, {other.name!r} at {other.address}"
            )
    return [block.address for block in blocks]
