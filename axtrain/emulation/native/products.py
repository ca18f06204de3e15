"""One product in NumPy: the way that costs least, its operands' preparation, and its parts side by side."""

from __future__ import annotations

from functools import cached_property, lru_cache, partial
from typing import NamedTuple

import numpy as np

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.native import depthwise, images, pair_products, row_groups
from axtrain.emulation.native.buffers import Buffers, Scratch, ScratchPool
from axtrain.emulation.native.outputs import add_taps
from axtrain.emulation.native.places import Places, places_of
from axtrain.emulation.native.row_vectors import STEP, lane_order
from axtrain.emulation.native.tables import FactorTable, RowTable, factor_table
from axtrain.emulation.native.threads import cores, parts, run

_PARTS = 2  # parts for each core: who is late then holds up little
_FEW_WEIGHTS = 1 << 16  # waking a thread costs more than preparing so many
_FEW_PRODUCTS = 1 << 19  # or than so many products
_MANY_PIXELS = 1 << 11  # of one part: their products then cost far more than building the rows
# About how many cycles of one core it takes (AVX2). As measured: for one product by rows or by one factor, for an entry
# of a row that is built, and for a weight's factor that is put into its place. Chosen here: for a code's factor that is
# looked up, and for one tap's sum that is added to the others.
_ROW, _FACTOR, _ENTRY, _PLACED, _FOUND, _JOINED = 1 / 8, 1 / 14, 0.25, 3.0, 1.5, 2.0
_WIDE = 4.0  # rows of 32-bit words cost so many times as much (chosen here)
_PLANS = 256  # shapes of products that are remembered
_DEPTHWISE_RANK = 3  # more factors cost a depthwise product more than look-ups


class Quantiser(NamedTuple):
    """float32 scale, zero point, lowest and highest code of the activations."""

    scale: np.float32
    zero_point: np.float32
    low: np.float32
    high: np.float32


class Weights(NamedTuple):
    """float32 weights (terms, channels), or (taps, channels) of a depthwise product, and the scale of each channel.

    A weight's code is ``round(value / scale)``; the scales are 1 where the values are codes.
    """

    values: np.ndarray
    scales: np.ndarray


class Outputs(NamedTuple):
    """What sums become: ``sum * scale + bias`` in `real`, or the sums in `whole`; the other is empty."""

    scales: np.ndarray
    biases: np.ndarray
    whole: np.ndarray
    real: np.ndarray


class NativeProducts:
    """The products of one table, by kernels that numba compiles.

    Args:
        table: the products over the codes in use.
    """

    def __init__(self, table: CodeTable) -> None:
        self.table = table
        self.buffers = Buffers()
        self.rows = lru_cache(lambda first: RowTable(table.products, first))
        self.plan = lru_cache(_PLANS)(lambda *shapes: Plan(self, places_of(*shapes)))
        self.added = lru_cache(_PLANS)(self._added)

    @cached_property
    def factors(self) -> FactorTable | None:
        """Integer factors of 16 bits, where the table has few."""
        return factor_table(self.table)

    @cached_property
    def below(self) -> int:
        """How many activation codes are negative."""
        return max(0, -self.table.activation_low)

    @cached_property
    def columns(self) -> np.ndarray:
        """int32 (weight codes + 1, activation codes), the last column zero."""
        return np.ascontiguousarray(np.pad(self.table.products.T, [(0, 1), (0, 0)]))

    def _added(self, zero_point: int, rest: RowTable | FactorTable | None) -> np.ndarray:
        """int64 (weight codes + 1,): what a weight adds to its channel besides its products; the last is 0.

        Args:
            zero_point: corrected for.
            rest: what the products come from, which leaves something out; `None` for whole products.
        """
        return np.append((0 if rest is None else rest.added) - zero_point * self.table.weight_codes, 0)

    def factor_cost(self, places: Places) -> float:
        """Cycles for each term by factors."""
        factors = self.factors
        if factors is None:
            return np.inf
        rank = len(factors.weight)
        found = 0 if factors.line else places.pixels * rank * _FOUND / places.taps
        return rank * places.channels * (places.pixels * _FACTOR + _PLACED) + found

    def row_costs(self, places: Places, codes: int) -> tuple[float, float]:
        """Cycles for each term by rows of so many codes: where the weights stay, and where the pixels do."""
        times = _WIDE if self.rows(0).wide else 1
        weights_stay = places.channels * (codes * _ENTRY + places.pixels * _ROW)
        pixels, taps = (places.inputs, places.taps) if _shares_taps(places) else (places.pixels, 1)
        pixels_stay = pixels * (self.table.products.shape[1] * _ENTRY / taps + places.channels * _ROW)
        if taps > 1:
            pixels_stay += pixels * places.channels * _JOINED / places.shape[3]
        return times * weights_stay, times * pixels_stay


class _Call(NamedTuple):
    """What differs from one product to the next of the same shapes."""

    values: np.ndarray  # float32 (B, H, W, C)
    quantiser: Quantiser
    zero_point: int  # corrected for: ``- zero_point sum w``; 0 for none
    weights: Weights
    outputs: Outputs
    scratch: Scratch


class _Streamed(NamedTuple):
    """Weights as they are streamed, what each channel's sums begin with, and the jobs that write both."""

    words: np.ndarray
    base: np.ndarray
    jobs: list[tuple]


class Plan:
    """One product's shapes and what follows from them: made once, called for every product of these shapes.

    Args:
        products: of the table.
        places: of the product.
    """

    def __init__(self, products: NativeProducts, places: Places) -> None:
        self.products, self.places = products, places
        self._steps, self._unit = places.steps, places.pixel_bytes()
        self._runs = places.run_places * self._unit[0]
        self._groups = _groups(places.channels)
        # In how many parts the products are worth making, and (first, last) image of each part of the batch.
        self._split = cores() if places.pixels * places.terms * places.channels > _FEW_PRODUCTS else 1
        self._batches = parts(places.shape[0], self._split if self._split == 1 else self._split * _PARTS)
        self._no_scales = np.zeros(places.channels, np.float32)
        self._empty = np.empty((0, places.channels), np.int32), np.empty((0, places.channels), np.float32)
        self._way = self._cheapest() if places.pixels and places.channels and places.terms else None

    def __call__(self, values, limits, weights: Weights, rescaled) -> np.ndarray:
        """The outputs, (pixels, channels).

        Args:
            values: float32 activations, or their codes.
            limits: (scale, zero point, lowest code, highest code) of the activations, whose codes beyond the table's
                become its nearest; `None` where they are codes.
            weights: of the product.
            rescaled: float32 (scales, biases), for float32 outputs ``sum * scale + bias``; `None` for the int32 sums.
        """
        places, products = self.places, self.products
        image = places.image_of(values)
        target = products.buffers.take((places.pixels, places.channels), np.int32 if rescaled is None else np.float32)
        if rescaled is None:
            outputs = Outputs(self._no_scales, self._no_scales, target, self._empty[1])
        else:
            scales, biases = rescaled
            outputs = Outputs(scales, biases, self._empty[0], target)
        if self._way is None:
            target[:] = outputs.biases
            return target
        low = products.table.activation_low
        high = low + len(products.table.products) - 1
        scale, zero_point, lowest, highest = limits or (1, 0, low, high)
        codes = np.float32(max(low, lowest)), np.float32(min(high, highest))
        quantiser = Quantiser(np.float32(scale), np.float32(zero_point), *codes)
        with _SCRATCH.borrowed() as scratch:
            finite = self._way(_Call(image, quantiser, int(zero_point), weights, outputs, scratch))
        if not finite and rescaled is not None:
            places.spoil(image, target)
        return target

    @cached_property
    def _weights_stay(self) -> bool:
        """Whether rows are better built from the weights, if all activation codes occur."""
        weights_stay, pixels_stay = self.products.row_costs(self.places, len(self.products.table.products))
        return weights_stay <= pixels_stay

    @cached_property
    def _offsets(self) -> np.ndarray:
        """int64, the byte of the first word under each window."""
        return self.places.offsets(self.places.window_places())

    def _cheapest(self):
        """The function that computes a `_Call` at the least cost; it returns whether all values are finite."""
        places, products = self.places, self.products
        factors = products.factors
        if places.depthwise:
            few = factors and len(factors.weight) <= _DEPTHWISE_RANK and places.channels == places.shape[3]
            return partial(self._multiplied, factors) if few else self._looked_up
        rows = min(products.row_costs(places, len(products.table.products)))
        if factors and products.factor_cost(places) <= rows:
            return partial(self._by_factors, factors)
        # Each part of the batch builds the rows of every channel, which must not be much beside its products.
        many = len(self._batches) >= self._split and places.pixels >= _MANY_PIXELS * len(self._batches)
        return self._by_rows_of_images if self._weights_stay and many else self._by_rows

    def _by_factors(self, factors: FactorTable, call: _Call) -> bool:
        """By products of the operands' factors."""
        places, rank, channels = self.places, len(factors.weight), self.places.channels
        groups, pairs = -(-channels // 16), -(-places.taps_of_a_run * rank * places.shape[3] // 2)
        panels = call.scratch.take("weights", (groups, len(self._runs), pairs, 16), np.uint32)
        base = np.empty(channels, np.int32)
        table = (factors.weight, factors.weight_line, self.products.added(call.zero_point, factors))
        known: tuple = (*call.weights, self.products.table.weight_low, *table, places.taps_of_a_run, panels, base)
        shares = parts(groups, cores() if call.weights.values.size > _FEW_WEIGHTS else 1, 4)
        run([(pair_products.weight_panels, *known, part) for part in shares])
        image = self._factor_image(call, factors)
        known = (self._steps, places.pixel_bytes(rank), self._runs * rank, panels, base, tuple(call.outputs))
        if len(self._batches) >= self._split:
            return all(run([(pair_products.quantised_pairs, *image, *known, some) for some in self._batches]))
        # Too few images to share: share the output channels.
        finite = images.quantise_factors(*image, (0, places.shape[0]))
        words = image[-1].reshape(-1)
        some = (0, places.pixels)
        run([(pair_products.pair_products, words, *known, some, these) for these in parts(groups, cores())])
        return finite

    def _by_rows_of_images(self, call: _Call) -> bool:
        """By look-ups of rows, which each part of the batch builds from all weights."""
        below = self.products.below
        tables = [self._row_table(call, self.products.rows(first)) for first in (0, below)]
        image = self._row_image(call)
        known: tuple = (image, tuple(tables), below, self._steps, self._unit, self._runs, *call.weights)
        known = (*known, self.products.table.weight_low, tuple(call.outputs), self._groups)
        return all(run([(row_groups.quantised_rows, *known, some) for some in self._batches]))

    def _by_rows(self, call: _Call) -> bool:
        """By look-ups of rows, once all images are quantised."""
        places, products = self.places, self.products
        image = self._row_image(call)
        codes = image[5]
        jobs = [(images.quantise_image, *image, some) for some in self._batches]
        # Where all codes have the same columns, the weights need not wait for the activations.
        streamed = None if products.below or self._weights_stay else self._streamed(call, products.rows(0))
        found = run(jobs + streamed.jobs if streamed else jobs)[: len(jobs)]
        smallest, largest = min(one[0] for one in found), max(one[1] for one in found)
        span = row_groups.span_of(smallest, largest)
        # Behind a ReLU no code is below zero: the columns then span less, and more of them are summed at a time.
        rows = products.rows(products.below if smallest >= STEP * products.below else 0)
        weights_stay, pixels_stay = products.row_costs(places, span[1] - span[0])
        if weights_stay <= pixels_stay:
            table, added = self._row_table(call, rows)
            base = np.empty(places.channels, np.int32)
            known: tuple = (codes.reshape(-1), self._steps, self._unit, self._runs, table, span)
            known = (*known, *call.weights, products.table.weight_low, added, base, tuple(call.outputs))
            shares = parts(places.pixels, -(-self._split // len(self._groups)))
            run([(row_groups.weights_stay, *known, some, *group) for group in self._groups for some in shares])
            return all(finite for *_, finite in found)
        if streamed is None:
            streamed = self._streamed(call, rows)
            run(streamed.jobs)
        if _shares_taps(places):
            self._taps_apart(call, codes, rows, streamed)
        else:
            shared = (self._runs, places.terms // len(self._runs), rows, streamed.words, streamed.base, call.outputs)
            self._pixels_stay(codes, self._offsets, *shared)
        return all(finite for *_, finite in found)

    def _multiplied(self, factors: FactorTable, call: _Call) -> bool:
        """A depthwise product by the operands' factors."""
        places, rank, channels = self.places, len(factors.weight), self.places.channels
        terms = (places.tap_places[:, None] * rank + np.arange(rank)).reshape(-1) * (2 * channels)
        terms = np.append(terms, [0] * (terms.size % 2)).astype(np.int64)
        panels = np.zeros((-(-channels // 16), len(terms) // 2, 2, 8, 2), np.int16)
        base, added = np.empty(channels, np.int32), self.products.added(call.zero_point, factors)
        lowest = self.products.table.weight_low
        depthwise.channel_panels(*call.weights, lowest, factors.weight, added, panels, base)
        image = self._factor_image(call, factors)
        known = (self._steps, places.pixel_bytes(rank), terms, panels, base, tuple(call.outputs))
        return all(run([(depthwise.quantised_channels, *image, *known, some) for some in self._batches]))

    def _looked_up(self, call: _Call) -> bool:
        """A depthwise product by look-ups."""
        places, products, entry = self.places, self.products, depthwise.ENTRY
        image = self._image(call, entry, -entry * products.table.activation_low)
        found = run([(images.quantise_image, *image, some) for some in self._batches])
        where = (image[5], (*places.padded, places.shape[3]), places.strides, places.dilation)
        known: tuple = (*call.weights, places.window, products.table.weight_low, products.added(call.zero_point, None))
        base = np.empty(places.channels, np.int32)
        known = (*where, products.columns, *known, base, tuple(call.outputs), places.sizes)
        blocks = parts(places.channels, self._split * _PARTS, 16)
        batches = parts(places.shape[0], 1 if len(blocks) >= self._split else cores())
        run([(depthwise.looked_up, *known, some, these) for some in batches for these in blocks])
        return all(finite for *_, finite in found)

    def _row_table(self, call: _Call, rows: RowTable) -> tuple:
        """((columns, length, wide, order), added) for rows that are built from the weights."""
        return (*rows.by_weight, lane_order(rows.wide)), self.products.added(call.zero_point, rows)

    def _streamed(self, call: _Call, rows: RowTable) -> _Streamed:
        """Weights as they are streamed: those of each tap, or of each run, one after the other."""
        number = self.places.taps if _shares_taps(self.places) else len(self._runs)
        values, step = call.weights.values.reshape(number, -1, self.places.channels), 2 * rows.length
        _, terms, channels = values.shape
        words = call.scratch.take("weights", (number, channels, -(-terms // step) * step), np.uint16)
        base, added = np.empty(channels, np.int32), self.products.added(call.zero_point, rows)
        known = (values, call.weights.scales, self.products.table.weight_low, added, words, base)
        shares = parts(channels, cores() if values.size > _FEW_WEIGHTS else 1, 64)
        return _Streamed(words, base, [(row_groups.streamed_weights, *known, part) for part in shares])

    def _pixels_stay(self, codes, offsets, runs, terms: int, rows: RowTable, streamed, base, outputs) -> None:
        """Rows are built from the codes of the pixels, for all weight codes."""
        table = (*rows.by_activation, lane_order(rows.wide))
        groups = _groups(len(offsets), 16 if len(offsets) <= 16 * cores() else row_groups.GROUP)
        shares = parts(streamed.shape[1], max(1, -(-self._split // len(groups))))
        known = (codes.reshape(-1), offsets, runs, terms, table, streamed, base, tuple(outputs))
        run([(row_groups.pixels_stay, *known, some, *group) for group in groups for some in shares])

    def _taps_apart(self, call: _Call, codes, rows: RowTable, streamed: _Streamed) -> None:
        """The pixels stay, and their rows serve every tap of the window; the taps' sums are put together at the end."""
        places = self.places
        inputs, taps, channels = places.shape[3], places.taps, places.channels
        met, sources = places.inputs_of_taps()
        sums = call.scratch.take("sums", (len(met), taps * channels), np.int32)
        nothing, none = np.zeros(taps * channels, np.float32), np.empty((0, taps * channels), np.float32)
        raw, no_base = Outputs(nothing, nothing, sums, none), np.zeros(taps * channels, np.int32)
        flat = streamed.words.reshape(1, taps * channels, -1)
        self._pixels_stay(codes, places.offsets(met), np.zeros(1, np.int64), inputs, rows, flat, no_base, raw)
        known = (sums.reshape(-1, taps, channels), sources, streamed.base, tuple(call.outputs))
        run([(add_taps, *known, part) for part in parts(places.pixels, self._split)])

    def _image(self, call: _Call, gain: int, offset: int) -> tuple:
        """What `images.quantise_image` takes, all but the images; the words are at place 5.

        Args:
            call: whose values are quantised.
            gain, offset: a word is ``gain * code + offset``.
        """
        places, values = self.places, call.values
        words = call.scratch.take("image", (places.shape[0], self._unit[1] // 2), np.uint16)
        return values, values.view(np.int32), tuple(call.quantiser), gain, offset, words, places.padded, places.corner

    def _row_image(self, call: _Call) -> tuple:
        return self._image(call, STEP, -STEP * self.products.table.activation_low)

    def _factor_image(self, call: _Call, factors: FactorTable) -> tuple:
        """What `images.quantise_factors` takes, all but the images; the last are the factors, int16."""
        if factors.line:
            image = self._image(call, *factors.line)
            return image, _NO_FACTORS, image[5].view(np.int16)
        size = self.places.pixel_bytes(len(factors.activation))[1] // 2
        storage = call.scratch.take("factors", (self.places.shape[0], size), np.int16)
        return self._image(call, 1, -self.products.table.activation_low), factors.activation, storage


_NO_FACTORS = np.empty((0, 0), np.int16)

_SCRATCH = ScratchPool()


def _shares_taps(places: Places) -> bool:
    """Whether a pixel meets every tap of the window, so that one row serves them all."""
    return places.taps > 1 and max(places.strides) == 1


def _groups(count: int, width: int = row_groups.GROUP) -> np.ndarray:
    """int64 (n, 2), (first, how many lanes) of groups that cover `count`; the last takes 16 where that is enough."""
    firsts = np.arange(0, count, width)
    return np.stack([firsts, np.where(count - firsts <= 16, 16, width)], axis=-1)
