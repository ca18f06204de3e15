"""One product in NumPy: the way that costs least, its operands' preparation, and its parts side by side."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.native import depthwise, images, pair_products, row_groups
from axtrain.emulation.native.buffers import Buffers, Scratch
from axtrain.emulation.native.outputs import add_taps
from axtrain.emulation.native.places import Places
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
        self._rows: dict[int, RowTable] = {}

    @cached_property
    def factors(self) -> FactorTable | None:
        """Integer factors of 16 bits, where the table has few."""
        return factor_table(self.table)

    def rows(self, first: int) -> RowTable:
        """The table's columns over the activation codes from row `first` on: all, or those that are not negative."""
        if first not in self._rows:
            self._rows[first] = RowTable(self.table.products, first)
        return self._rows[first]

    def __call__(
        self, places: Places, values, quantiser: Quantiser, zero_point: int, weights: Weights, outputs: Outputs
    ) -> bool:
        """Writes the outputs.

        Args:
            places: of the product.
            values: float32 (B, H, W, C).
            quantiser: of the values; codes beyond the table's become its nearest.
            zero_point: corrected for: ``- zero_point sum w``; 0 for none.
            weights: of the product.
            outputs: written.

        Returns:
            whether all values are finite; where they are not, what they enter is meaningless.
        """
        if not (places.pixels and places.channels and places.terms):
            outputs.whole[:], outputs.real[:] = 0, outputs.biases
            return True
        table = self.table
        low, high = table.activation_low, table.activation_low + len(table.products) - 1
        quantiser = quantiser._replace(
            low=max(quantiser.low, np.float32(low)), high=min(quantiser.high, np.float32(high))
        )
        one = _Product(self, places, values, quantiser, zero_point, weights, outputs)
        factors = self.factors
        if places.depthwise:
            if factors and len(factors.weight) <= _DEPTHWISE_RANK and places.channels == places.shape[3]:
                return one.multiplied(factors)
            return one.looked_up()
        rows = min(self.row_costs(places, len(table.products)))
        return one.by_factors(factors) if factors and self._factor_cost(places) <= rows else one.by_rows()

    def _factor_cost(self, places: Places) -> float:
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

    @cached_property
    def columns(self) -> np.ndarray:
        """int32 (weight codes + 1, activation codes), the last column zero."""
        return np.ascontiguousarray(np.pad(self.table.products.T, [(0, 1), (0, 0)]))


class _Product(NamedTuple):
    """One product under way; each way to compute it returns whether all values are finite."""

    products: NativeProducts
    places: Places
    values: np.ndarray
    quantiser: Quantiser
    zero_point: int
    weights: Weights
    outputs: Outputs

    def by_factors(self, factors: FactorTable) -> bool:
        """By products of the operands' factors."""
        places = self.places
        rank, channels = len(factors.weight), places.channels
        pixel_bytes, runs = places.pixel_bytes(rank), places.run_places
        groups, pairs = -(-channels // 16), -(-places.taps_of_a_run * rank * places.shape[3] // 2)
        panels = _SCRATCH.take("weights", (groups, len(runs), pairs, 16), np.uint32)
        base, lowest = np.empty(channels, np.int32), self.products.table.weight_low
        table = (lowest, factors.weight, factors.weight_line, self._added(factors.added))
        known = (*self.weights, *table, places.taps_of_a_run, panels, base)
        shares = parts(groups, cores() if self.weights.values.size > _FEW_WEIGHTS else 1, 4)
        run([(pair_products.weight_panels, *known, part) for part in shares])
        image, quantise = self._factor_image(factors)
        where = (image.reshape(-1), places.steps, pixel_bytes, runs * pixel_bytes[0])
        shared = (*where, panels, base, tuple(self.outputs))
        batches = self._batches()
        if len(batches) < self._split():  # too few images to share: share the output channels
            _, _, finite = quantise((0, places.shape[0]))
            shares = parts(groups, cores())
            run([(pair_products.pair_products, *shared, (0, places.pixels), these) for these in shares])
            return finite

        def some(images) -> bool:
            _, _, finite = quantise(images)
            pair_products.pair_products(*shared, self._pixels_of(images), (0, groups))
            return finite

        return all(run([(some, images) for images in batches]))

    def by_rows(self) -> bool:
        """By look-ups of rows."""
        places, step = self.places, row_groups.STEP
        image, quantise = self._image(step, -step * self.products.table.activation_low)
        batches = self._batches()
        weights_stay, pixels_stay = self.products.row_costs(places, len(self.products.table.products))
        groups = _groups(places.channels)
        # Each part of the batch builds the rows of every channel, which must not be much beside its products.
        if (
            weights_stay <= pixels_stay
            and len(batches) >= self._split()
            and places.pixels >= _MANY_PIXELS * len(batches)
        ):

            def some(images) -> bool:
                *codes, finite = quantise(images)
                rows, span = self._rows_for(*codes)
                for group in groups:
                    row_groups.weights_stay(*self._stationary(image, rows, span), self._pixels_of(images), *group)
                return finite

            return all(run([(some, images) for images in batches]))
        found = run([(quantise, images) for images in batches])
        smallest, largest = min(one[0] for one in found), max(one[1] for one in found)
        rows, span = self._rows_for(smallest, largest)
        weights_stay, pixels_stay = self.products.row_costs(places, span[1] - span[0])
        if weights_stay <= pixels_stay:
            shared, shares = self._stationary(image, rows, span), parts(places.pixels, -(-self._split() // len(groups)))
            run([(row_groups.weights_stay, *shared, some, *group) for group in groups for some in shares])
        elif _shares_taps(places):
            self._taps_apart(image, rows)
        else:
            runs = places.run_places
            streamed, base = self._streamed(len(runs), rows)
            offsets, unit = places.offsets(places.window_places()), places.pixel_bytes()[0]
            self._pixels_stay(
                image, offsets, runs * unit, places.terms // len(runs), rows, streamed, base, self.outputs
            )
        return all(finite for *_, finite in found)

    def multiplied(self, factors: FactorTable) -> bool:
        """A depthwise product by the operands' factors."""
        places, rank, channels = self.places, len(factors.weight), self.places.channels
        image, quantise = self._factor_image(factors)
        terms = (places.tap_places[:, None] * rank + np.arange(rank)).reshape(-1) * (2 * channels)
        terms = np.append(terms, [0] * (terms.size % 2)).astype(np.int64)
        panels = np.zeros((-(-channels // 16), len(terms) // 2, 2, 8, 2), np.int16)
        base, lowest = np.empty(channels, np.int32), self.products.table.weight_low
        depthwise.channel_panels(*self.weights, lowest, factors.weight, self._added(factors.added), panels, base)
        where = (image.reshape(-1), places.steps, places.pixel_bytes(rank), terms)
        shared = (*where, panels, base, tuple(self.outputs))

        def some(batch) -> bool:
            _, _, finite = quantise(batch)
            depthwise.multiplied(*shared, self._pixels_of(batch))
            return finite

        return all(run([(some, batch) for batch in self._batches()]))

    def looked_up(self) -> bool:
        """A depthwise product by look-ups."""
        places, products, entry = self.places, self.products, depthwise.ENTRY
        image, quantise = self._image(entry, -entry * products.table.activation_low)
        found = run([(quantise, batch) for batch in self._batches()])
        where = (image, (*places.padded, places.shape[3]), places.strides, places.dilation)
        known = (products.columns, *self.weights, places.window, products.table.weight_low, self._added(0))
        shared = (*where, *known, np.empty(places.channels, np.int32), tuple(self.outputs), places.sizes)
        blocks = parts(places.channels, self._split(_PARTS), 16)
        batches = parts(places.shape[0], 1 if len(blocks) >= self._split() else cores())
        run([(depthwise.looked_up, *shared, some, these) for some in batches for these in blocks])
        return all(finite for *_, finite in found)

    def _rows_for(self, smallest: int, largest: int) -> tuple[RowTable, tuple[int, int]]:
        """The table's columns for codes between two words of the image, and the (first, last) row that is built."""
        below, step = self.products.table.activation_low, row_groups.STEP
        # Behind a ReLU no code is below zero: the columns then span less, and more of them are summed at a time.
        first = -below if below < 0 and smallest >= -step * below else 0
        return self.products.rows(first), (int(smallest) // step // 8 * 8, (int(largest) // step // 8 + 1) * 8)

    def _stationary(self, image, rows: RowTable, span: tuple[int, int]) -> tuple:
        """The first arguments of `weights_stay`; rows are built from the weights, for all codes in `span`."""
        places, unit = self.places, self.places.pixel_bytes()
        table = (rows.by_weight, rows.length, row_groups.lane_order(rows.wide))
        base, lowest = np.empty(places.channels, np.int32), self.products.table.weight_low
        codes = (image.reshape(-1), places.steps, unit, places.run_places * unit[0], table, span)
        return (*codes, *self.weights, lowest, self._added(rows.centres), base, tuple(self.outputs))

    def _streamed(self, number: int, rows: RowTable) -> tuple[np.ndarray, np.ndarray]:
        """Weights in `number` parts as they are streamed, and what each channel's sums begin with."""
        values, step = self.weights.values.reshape(number, -1, self.places.channels), 2 * rows.length
        _, terms, channels = values.shape
        streamed = _SCRATCH.take("weights", (number, channels, -(-terms // step) * step), np.uint16)
        base, lowest = np.empty(channels, np.int32), self.products.table.weight_low
        known = (values, self.weights.scales, lowest, self._added(rows.centres), streamed, base)
        shares = parts(channels, cores() if values.size > _FEW_WEIGHTS else 1, 64)
        run([(row_groups.streamed_weights, *known, part) for part in shares])
        return streamed, base

    def _pixels_stay(self, image, offsets, runs, terms: int, rows: RowTable, streamed, base, outputs) -> None:
        """Rows are built from the codes of the pixels, for all weight codes."""
        table = (rows.by_activation, rows.length, row_groups.lane_order(rows.wide))
        groups = _groups(len(offsets), 16 if len(offsets) <= 16 * cores() else row_groups.GROUP)
        shares = parts(streamed.shape[1], max(1, -(-self._split() // len(groups))))
        shared = (image.reshape(-1), offsets, runs, terms, table, streamed, base, tuple(outputs))
        run([(row_groups.pixels_stay, *shared, some, *group) for group in groups for some in shares])

    def _taps_apart(self, image, rows: RowTable) -> None:
        """The pixels stay, and their rows serve every tap of the window; the taps' sums are put together at the end."""
        places = self.places
        inputs, taps, channels = places.shape[3], places.taps, places.channels
        streamed, base = self._streamed(taps, rows)
        met, sources = places.inputs_of_taps()
        sums = _SCRATCH.take("sums", (len(met), taps * channels), np.int32)
        nothing, none = np.zeros(taps * channels, np.float32), np.empty((0, taps * channels), np.float32)
        raw, no_base = Outputs(nothing, nothing, sums, none), np.zeros(taps * channels, np.int32)
        flat = streamed.reshape(1, taps * channels, -1)
        self._pixels_stay(image, places.offsets(met), np.zeros(1, np.int64), inputs, rows, flat, no_base, raw)
        known = (sums.reshape(-1, taps, channels), sources, base, tuple(self.outputs))
        run([(add_taps, *known, part) for part in parts(places.pixels, self._split())])

    def _added(self, centres) -> np.ndarray:
        """int64 (weight codes + 1,): what a weight adds to its channel besides its products; the last is 0."""
        return np.append(centres - self.zero_point * self.products.table.weight_codes, 0)

    def _split(self, times: int = 1) -> int:
        """In how many parts the products are worth making."""
        work = self.places.pixels * self.places.terms * self.places.channels
        return times * cores() if work > _FEW_PRODUCTS else 1

    def _batches(self) -> list[tuple[int, int]]:
        """(first, last) image of each part of the batch."""
        return parts(self.places.shape[0], self._split(_PARTS))

    def _pixels_of(self, batch: tuple[int, int]) -> tuple[int, int]:
        """(first, last) pixel of the output of some images."""
        height, width = self.places.sizes
        return batch[0] * height * width, batch[1] * height * width

    def _image(self, gain: int, offset: int):
        """uint16 words (B, words of an image and its tail), and the function that fills them.

        The function takes (first, last) image and gives the smallest word, the largest, and whether all are finite.

        Args:
            gain, offset: a word is ``gain * code + offset``.
        """
        places, values = self.places, self.values
        storage = _SCRATCH.take("image", (places.shape[0], places.pixel_bytes()[1] // 2), np.uint16)
        known = (
            values,
            values.view(np.int32),
            tuple(self.quantiser),
            gain,
            offset,
            storage,
            places.padded,
            places.corner,
        )
        return storage, lambda some: images.quantise_image(*known, some)

    def _factor_image(self, factors: FactorTable):
        """As `_image`, int16 factors: images (padded H, padded W, r, C)."""
        places = self.places
        if factors.line:
            image, quantise = self._image(*factors.line)
            return image.view(np.int16), quantise
        codes, quantise = self._image(1, -self.products.table.activation_low)
        size = places.pixel_bytes(len(factors.activation))[1] // 2
        storage = _SCRATCH.take("factors", (places.shape[0], size), np.int16)

        def look_up(some):
            found = quantise(some)
            images.look_up_factors(codes, factors.activation, storage, places.padded[0] * places.padded[1], some)
            return found

        return storage, look_up


_SCRATCH = Scratch()


def _shares_taps(places: Places) -> bool:
    """Whether a pixel meets every tap of the window, so that one row serves them all."""
    return places.taps > 1 and max(places.strides) == 1


def _groups(count: int, width: int = row_groups.GROUP) -> list[tuple[int, int]]:
    """(first, how many lanes) of groups that cover `count`; what is left takes 16 where that is enough."""
    found = [(first, width) for first in range(0, count, width)]
    first, _ = found[-1]
    return [*found[:-1], (first, 16 if count - first <= 16 else width)]
