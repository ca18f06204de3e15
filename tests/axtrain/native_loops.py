"""Random products through the native engine, each compared with a plain integer sum: ``python native_loops.py``.

Tables of every kind, width and signedness; products of every shape; and every way in which the engine computes them,
forced in turn. What is compared is the accumulator, an integer: one difference is one too many.
"""

import argparse
import contextlib
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

if __name__ == "__main__":  # the checkout, not another installation
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from axtrain.emulation.code_table import CodeTable
from axtrain.emulation.geometry import Convolution, Dense, same_pads
from axtrain.emulation.native import products
from axtrain.emulation.native.engine import NativeEngine

CHANNELS = (1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 48, 65, 100)
WINDOWS = ((1, 1), (2, 3), (3, 3), (5, 5), (7, 7), (1, 4), (3, 1))
LIMIT = 2**31 - 1
# Half of what the codes of one weight may span, for sums of 4, 2 and 1 terms in 16 bits; beyond it, 32-bit rows.
SPANS = {"sums of four": 1 << 13, "sums of two": 1 << 14, "sums of one": (1 << 15) - 1, "32-bit rows": LIMIT}
KINDS = (*SPANS, "line", "rank 1", "rank 2", "rank 3", "rank 7", "near exact", "zero", "of one operand", "extreme")
WAYS = (None, "factors", "weights stay", "weights stay by images", "pixels stay", "taps apart", "looked up")
KERNELS = {
    "quantised_pairs": "factors",
    "pair_products": "factors",
    "quantised_rows": "weights stay",
    "weights_stay": "weights stay",
    "pixels_stay": "pixels stay",
    "add_taps": "taps apart",
    "quantised_channels": "depthwise factors",
    "looked_up": "depthwise look-ups",
}


class Case(NamedTuple):
    """One product: codes as integers, and where they meet."""

    geometry: object
    activations: np.ndarray
    weights: np.ndarray
    zero_point: int


def random_table(rng, kind, bits, lows) -> CodeTable:
    """Products of `kind` over so many bits of (activation, weight) codes from `lows` on."""
    shape = tuple(1 << n for n in bits)
    first, second = (np.arange(n) + low for n, low in zip(shape, lows, strict=True))

    def factors(rank, size=99):
        return rng.integers(-size, size + 1, (shape[0], rank)) @ rng.integers(-size, size + 1, (rank, shape[1]))

    if kind in SPANS:
        half = SPANS[kind]
        # What a weight's products have in common may be anything; what they differ by is full of extremes.
        centres = 0 if half == LIMIT else rng.integers(-(1 << 28), 1 << 28, shape[1])
        drawn = rng.integers(-half, half, shape)
        drawn[rng.random(shape) < 0.2] = half - 1
        drawn[rng.random(shape) < 0.2] = -half
        return CodeTable((centres + drawn).clip(-LIMIT - 1, LIMIT), *lows)
    table = {
        "line": lambda: np.outer(rng.integers(1, 4) * first + rng.integers(-9, 9), second),
        "rank 1": lambda: factors(1),
        "rank 2": lambda: factors(2),
        "rank 3": lambda: factors(3),
        "rank 7": lambda: factors(7, 30),
        "near exact": lambda: np.outer(first, second) + rng.integers(-300, 900, shape),
        "zero": lambda: np.zeros(shape, int),
        "of one operand": lambda: np.broadcast_to(
            rng.integers(-LIMIT, LIMIT, shape[1]) if rng.random() < 0.5 else rng.integers(-99, 99, shape[0])[:, None],
            shape,
        ),
        "extreme": lambda: rng.choice([-LIMIT - 1, -LIMIT, -(2**24) - 1, -1, 0, 1, 2**24 + 1, LIMIT], shape),
    }[kind]()
    return CodeTable(table, *lows)


def any_table(rng, kind, widths=(2, 11)) -> CodeTable:
    """A table of that kind, its widths and signs drawn."""
    bits = tuple(int(n) for n in rng.integers(*widths, 2))
    lows = [0 if rng.random() < 0.5 else -(1 << (n - 1)) for n in bits]
    return random_table(rng, kind, bits, lows)


def codes(rng, all_codes, shape):
    """Codes of one operand: of the whole range, of its upper or lower part alone, the extremes, or one for all."""
    low, high = int(all_codes[0]), int(all_codes[-1])
    middle = (low + high) // 2
    ranges = [(low, high)] * 4 + [(max(low, 0), high), (middle, high), (low, middle), (min(127, high), high)]
    drawn = rng.integers(*(limit + more for limit, more in zip(ranges[rng.integers(8)], (0, 1), strict=True)), shape)
    kind = rng.random()
    if kind < 0.1:
        drawn = rng.choice([low, high], shape)
    elif kind < 0.15:
        drawn = np.full(shape, rng.integers(low, high + 1))
    return drawn


def random_case(rng, table: CodeTable, outputs: int) -> Case:
    """A product of at most about `outputs` sums."""
    a_codes, w_codes = table.activation_codes, table.weight_codes
    zero_point = int(rng.choice(a_codes)) if rng.random() < 0.5 else 0
    zero_point = int(np.clip(zero_point, a_codes[0], a_codes[-1]))
    channels = int(rng.choice(CHANNELS))
    kind = rng.choice(["dense", "batched", "conv", "conv", "conv", "causal", "depthwise", "depthwise"])
    if kind in ("dense", "batched"):
        lead = (int(rng.integers(1, 3)), int(rng.integers(1, 4))) if kind == "batched" else ()
        rows = int(rng.integers(1, 2 + outputs // channels // (int(np.prod(lead)) or 1)))
        terms = int(rng.choice([1, 2, 3, 7, 8, 9, 16, 31, 40, 100, 300]))
        second = (*lead, terms, channels)
        return Case(
            Dense(bool(lead)), codes(rng, a_codes, (*lead, rows, terms)), codes(rng, w_codes, second), zero_point
        )
    deep = kind == "depthwise"
    window = (int(rng.integers(1, 6)),) if kind == "causal" else WINDOWS[rng.integers(len(WINDOWS))]
    if kind == "conv" and rng.random() < 0.2:  # one spatial axis
        window = window[1:]
    axes = len(window)
    strides, dilation = (tuple(int(n) for n in rng.choice([1, 1, 1, 1, 1, 2, 3], axes)) for _ in range(2))
    padding = "causal" if kind == "causal" else str(rng.choice(["same", "valid"]))
    multiplier = int(rng.choice([1, 1, 2, 3])) if deep else 1
    if deep:
        channels = max(1, channels // multiplier)
    inputs = channels if deep else int(rng.choice([1, 2, 3, 4, 5, 8, 16, 17, 33]))
    smallest = [(k - 1) * d + 1 if padding == "valid" else 1 for k, d in zip(window, dilation, strict=True)]
    size = [int(n + rng.integers(0, 9)) for n in smallest]
    pixels = int(np.prod([-(-n // s) for n, s in zip(size, strides, strict=True)]))
    images = int(rng.integers(1, 2 + min(6, outputs // (pixels * channels * multiplier))))
    kernel = (*window, channels, multiplier) if deep else (*window, inputs, channels)
    geometry = Convolution(strides, padding, dilation, deep)
    return Case(geometry, codes(rng, a_codes, (images, *size, inputs)), codes(rng, w_codes, kernel), zero_point)


def loop(table: CodeTable, case: Case) -> np.ndarray:
    """int32 ``sum_k T[a, w] - zero_point sum_k w``, one product of each sum at a time, wrapping as int32 does."""
    geometry, a, w, zero_point = case
    if isinstance(geometry, Dense) and w.ndim > 2:
        lead = w.shape[:-2]
        pairs = zip(a.reshape(-1, *a.shape[-2:]), w.reshape(-1, *w.shape[-2:]), strict=True)
        each = [loop(table, Case(Dense(), *pair, zero_point)) for pair in pairs]
        return np.array(each).reshape(*lead, a.shape[-2], w.shape[-1])
    if isinstance(geometry, Dense):
        patches = a.reshape(-1, a.shape[-1])
        total = _sums(table, patches, w, zero_point)
        return total.reshape(*a.shape[:-1], w.shape[-1])
    window = w.shape[:-2]
    if geometry.padding == "same":
        pads = same_pads(a.shape[1:-1], window, geometry.strides, geometry.dilation_rate)
    elif geometry.padding == "causal":
        pads = [((k - 1) * d, 0) for k, d in zip(window, geometry.dilation_rate, strict=True)]
    else:
        pads = [(0, 0)] * len(window)
    a = np.pad(a, [(0, 0), *pads, (0, 0)], constant_values=zero_point)
    sizes = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(a.shape[1:-1], window, geometry.strides, geometry.dilation_rate, strict=True)
    ]
    views = []
    for tap in np.ndindex(*window):
        steps = zip(tap, sizes, geometry.strides, geometry.dilation_rate, strict=True)
        views.append(a[(slice(None), *(slice(t * d, t * d + (n - 1) * s + 1, s) for t, n, s, d in steps))])
    patches = np.stack(views, axis=-2)  # (B, *sizes, taps, C)
    shape, taps = patches.shape[:-2], len(views)
    if not geometry.depthwise:
        flat = w.reshape(taps * a.shape[-1], -1)
        return _sums(table, patches.reshape(-1, len(flat)), flat, zero_point).reshape(*shape, w.shape[-1])
    each = [
        _sums(table, patches[..., c].reshape(-1, taps), w[..., c, :].reshape(taps, -1), zero_point)
        for c in range(a.shape[-1])
    ]
    return np.stack(each, axis=-2).reshape(*shape, -1)


def _sums(table, patches, kernel, zero_point):
    rows, columns = patches - table.activation_low, kernel - table.weight_low
    total = np.zeros((len(rows), columns.shape[1]), np.int64)
    for k in range(rows.shape[1]):
        total += table.products[rows[:, k, None], columns[k]]
    return (total - zero_point * kernel.sum(axis=0, dtype=np.int64)).astype(np.int32)


class ForcedProducts(products.NativeProducts):
    """Products by one way where the product and the table allow it."""

    way = None

    def factor_cost(self, places):
        cost = super().factor_cost(places)
        if self.way in (None, "looked up"):
            return cost
        return 0.0 if self.way == "factors" and np.isfinite(cost) else np.inf

    def row_costs(self, places, codes):
        if self.way in (None, "looked up"):
            return super().row_costs(places, codes)
        return (0.0, 1.0) if "weights" in self.way else (1.0, 0.0)


def engine(table: CodeTable) -> NativeEngine:
    """A native engine whose way can be forced."""
    made = NativeEngine(table)
    made.__dict__["products"] = ForcedProducts(table)
    return made


@contextlib.contextmanager
def forced(made: NativeEngine, way, *, split=False):
    """Products of an engine by one way; with `split`, in parts however small they are."""
    saved = {name: getattr(products, name) for name in _LIMITS}
    taps = products._shares_taps
    made.products.way = way
    made.products.plan.cache_clear()
    try:
        if split:
            products._FEW_PRODUCTS = products._FEW_WEIGHTS = 0
        if way == "weights stay by images":
            products._MANY_PIXELS = 0
        if way == "pixels stay":
            products._shares_taps = lambda places: False
        if way == "looked up":
            products._DEPTHWISE_RANK = -1
        yield
    finally:
        made.products.way, products._shares_taps = None, taps
        made.products.plan.cache_clear()
        for name, value in saved.items():
            setattr(products, name, value)


_LIMITS = ("_FEW_PRODUCTS", "_FEW_WEIGHTS", "_MANY_PIXELS", "_DEPTHWISE_RANK")


@contextlib.contextmanager
def counted():
    """A count of the calls of each kind of kernel."""
    counts, run = Counter(), products.run

    def counting(jobs):
        counts.update(KERNELS[job[0].__name__] for job in jobs if job[0].__name__ in KERNELS)
        return run(jobs)

    try:
        products.run = counting
        yield counts
    finally:
        products.run = run


def poison(rng) -> None:
    """Fills the memory that products work in: none may count on what it finds there."""
    for scratch in products._SCRATCH.free:
        for storage in scratch._storage.values():
            storage[:] = rng.integers(256)


def native(made: NativeEngine, case: Case) -> np.ndarray:
    """The engine's int32 sums of a case, the zero point corrected for."""
    low, high = (float(made.table.activation_codes[i]) for i in (0, -1))
    values = (case.activations - case.zero_point).astype(np.float32)  # a scale of 1: real numbers, exactly
    limits = (1.0, float(case.zero_point), low, high)
    found = made._product(case.geometry, values, limits, case.weights.astype(np.float32), None, None)
    assert found.dtype == np.int32
    return found


def rescaled(made: NativeEngine, case: Case, rng) -> tuple[np.ndarray, np.ndarray]:
    """A layer's float32 outputs, and those that follow from the plain sums, bit for bit."""
    low, high = (float(made.table.activation_codes[i]) for i in (0, -1))
    values, weights = ((x - z).astype(np.float32) for x, z in ((case.activations, case.zero_point), (case.weights, 0)))
    sums = loop(made.table, case)
    channels = sums.shape[-1]
    each, biases = (rng.normal(size=channels).astype(np.float32) for _ in range(2))
    scales = np.exp2(rng.integers(-9, 9, channels)).astype(np.float32)  # the weights' own, exactly
    limits = (1.0, float(case.zero_point), low, high)
    flat = weights.reshape(-1, channels) * scales
    found = made._product(case.geometry, values, limits, flat.reshape(weights.shape), scales, (each, biases))
    assert found.dtype == np.float32
    return found, sums.astype(np.float32) * each + biases


def compare(count: int, seed: int = 0, *, tables: int = 60, outputs: int = 2000, report=None, widths=(2, 11)):
    """Compares until `count` sums have been; gives how many were, and how many differed.

    Args:
        count: sums to compare, each of one product or of thousands.
        seed: of all that is drawn.
        tables: how many, in turn of each kind.
        outputs: sums of one product, at most about.
        report: called with a line of text for each product that differs.
        widths: (lowest, beyond the highest) width in bits.
    """
    rng, compared, wrong = np.random.default_rng(seed), 0, 0
    for number in range(tables):
        kind = KINDS[number % len(KINDS)]
        made, turn = engine(any_table(rng, kind, widths)), 0
        while compared < count * (number + 1) / tables:
            way, split = WAYS[turn % len(WAYS)], bool(rng.random() < 0.5)
            case, turn = random_case(rng, made.table, int(outputs ** rng.random())), turn + 1
            if split:
                poison(rng)
            with forced(made, way, split=split):
                if turn % 2:
                    found, expected = rescaled(made, case, rng)
                else:
                    found, expected = native(made, case), loop(made.table, case)
            differing = int(np.sum(found != expected)) if found.shape == expected.shape else expected.size
            compared, wrong = compared + expected.size, wrong + differing
            if differing and report:
                what = f"{kind} {made.table.products.shape}, {way}, split={split}, {described(case)}"
                report(f"{differing} of {expected.size}: {what}")
    return compared, wrong


def described(case: Case) -> str:
    """A case in words."""
    return f"{case.geometry} {case.activations.shape} x {case.weights.shape}, zero point {case.zero_point}"


def target() -> str:
    """The processor that numba compiles for."""
    from numba.core.registry import cpu_target

    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    vectors = [wanted for wanted in ("avx512bw", "avx2", "sse4.2", "neon") if f"+{wanted}" in features]
    return f"{name} ({', '.join(vectors) or 'its features alone'})"


def main():
    """Compares as many sums as asked for, and says how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="Sums to compare.")
    parser.add_argument("--tables", type=int, default=60, help="Tables, in turn of each kind.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of all random draws.")
    arguments = parser.parse_args()
    with counted() as counts:
        compared, wrong = compare(arguments.count, arguments.seed, tables=arguments.tables, report=print)
    print("kernels called:", ", ".join(f"{name} {number}" for name, number in sorted(counts.items())))
    print(f"target {target()}: compared {compared} sums, {wrong} differences")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
