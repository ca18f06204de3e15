"""The loops of the native engine, written in LLVM's own language with llvmlite.

Numba has no vector type to write them in. It compiles them when they are first used, and no compiler is needed.
"""

from __future__ import annotations

from llvmlite import ir

CHANNELS = 4  # output channels that share one loading of activations in `ProductLoop`
INDEX, COUNT = ir.IntType(64), ir.IntType(32)
BYTES = ir.VectorType(ir.IntType(8), 64)
WORDS = ir.VectorType(ir.IntType(16), 32)
SUMS = ir.VectorType(COUNT, 16)
REALS = ir.VectorType(ir.FloatType(), 16)


class Loop:
    """Writes a loop that adds to sums in registers into the function under construction."""

    def __init__(self, builder) -> None:
        self.builder = builder

    def run(self, count, sums: int, body):
        """Runs `body(counter, sums)`, which gives the new sums, `count` times; gives the last ones."""
        builder = self.builder
        before, block = builder.block, builder.append_basic_block("body")
        after = builder.append_basic_block("after")
        builder.branch(block)
        builder.position_at_end(block)
        counter = builder.phi(INDEX)
        counter.add_incoming(INDEX(0), before)
        totals = [builder.phi(SUMS) for _ in range(sums)]
        for total in totals:
            total.add_incoming(ir.Constant(SUMS, [0] * 16), before)
        added = body(counter, totals)
        following = builder.add(counter, INDEX(1))
        counter.add_incoming(following, builder.block)
        for total, new in zip(totals, added, strict=True):
            total.add_incoming(new, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, count), block, after)
        builder.position_at_end(after)
        return added

    def interleaved(self, first, second, half: int, items: int, kind):
        """Items of both vectors in turn, of one half of each 128-bit quarter (punpckl, punpckh)."""
        count = 8 * items
        chosen = []
        for quarter in range(4):
            for item in range(items):
                place = 2 * items * quarter + items * half + item
                chosen += [place, count + place]
        mask = ir.Constant(ir.VectorType(COUNT, count), chosen)
        return self.builder.bitcast(self.builder.shuffle_vector(first, second, mask), kind)

    def spread(self, number):
        """A 32-bit number in every lane."""
        one = self.builder.insert_element(ir.Constant(SUMS, ir.Undefined), number, COUNT(0))
        return self.builder.shuffle_vector(one, one, ir.Constant(SUMS, [0] * 16))

    def load(self, address, kind, align: int):
        """What lies at an address."""
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=align)

    def declared(self, name: str, result, arguments):
        """LLVM's function of this name."""
        module = self.builder.module
        return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)

    def store(self, vector, address) -> None:
        """Puts a vector at an address."""
        self.builder.store(vector, self.builder.inttoptr(address, vector.type.as_pointer()), align=1)


class LookUpLoop(Loop):
    """Over pairs of rows: look up both, interleave, add."""

    def __init__(self, builder, small: bool, vectors: int) -> None:
        super().__init__(builder)
        self.small = small
        self.vectors = vectors
        self.permute = self.declared("llvm.x86.avx512.vpermi2var.qi.512", BYTES, [BYTES] * 3)
        self.add_pairs = self.declared("llvm.x86.avx512.vpdpwssd.512", SUMS, [SUMS] * 3)

    def build(self, indices, stride, table, offsets, pairs, sums) -> None:
        """Writes the loop; arguments as of `add_looked_up`."""
        builder = self.builder

        def body(pair, totals):
            first = builder.shl(pair, INDEX(1))
            even = self._products(indices, stride, table, offsets, first)
            odd = self._products(indices, stride, table, offsets, builder.add(first, INDEX(1)))
            return self._added(totals, even, odd)

        for number, total in enumerate(self.run(pairs, 4 * self.vectors, body)):
            self.store(total, builder.add(sums, INDEX(64 * number)))

    def _products(self, indices, stride, table, offsets, k):
        """The 16-bit products of row k: for each vector of lanes its two halves."""
        builder = self.builder
        offset = self.load(builder.add(offsets, builder.shl(k, INDEX(2))), COUNT, 4)
        column = builder.add(table, builder.zext(offset, INDEX))
        row = builder.add(indices, builder.mul(k, stride))
        low = [self.load(builder.add(column, INDEX(64 * i)), BYTES, 64) for i in range(2 if self.small else 4)]
        high = [self.load(builder.add(column, INDEX(256 + 64 * i)), BYTES, 64) for i in range(2 if self.small else 4)]
        products = []
        for vector in range(self.vectors):
            index = self.load(builder.add(row, INDEX(64 * vector)), BYTES, 1)
            low_bytes, high_bytes = self._look_up(low, index), self._look_up(high, index)
            products += [self.interleaved(low_bytes, high_bytes, half, 8, WORDS) for half in range(2)]
        return products

    def _look_up(self, table, index):
        low = self.builder.call(self.permute, [table[0], index, table[1]])
        if self.small:
            return low
        high = self.builder.call(self.permute, [table[2], index, table[3]])
        upper = self.builder.icmp_signed("<", index, ir.Constant(BYTES, [0] * 64))
        return self.builder.select(upper, high, low)

    def _added(self, totals, even, odd):
        ones = ir.Constant(SUMS, [0x00010001] * 16)
        added = []
        for first, second in zip(even, odd, strict=True):
            for part in range(2):
                words = self.interleaved(first, second, part, 4, SUMS)
                added.append(self.builder.call(self.add_pairs, [totals[len(added)], words, ones]))
        return added


class ProductLoop(Loop):
    """Over quads of rows: bring the four bytes of each lane together, multiply and add for every channel."""

    def __init__(self, builder) -> None:
        super().__init__(builder)
        self.multiply = self.declared("llvm.x86.avx512.vpdpbusd.512", SUMS, [SUMS] * 3)

    def build(self, rows, stride, weights, weight_stride, quads, sums, sums_stride) -> None:
        """Writes the loop; arguments as of `add_products`."""
        builder = self.builder

        def body(quad, totals):
            k = builder.shl(quad, INDEX(2))
            row = builder.add(rows, builder.mul(k, stride))
            bytes_of = []
            for _ in range(4):
                bytes_of.append(self.load(row, BYTES, 1))
                row = builder.add(row, stride)
            lanes = []
            for half in range(2):
                first = self.interleaved(bytes_of[0], bytes_of[1], half, 8, WORDS)
                second = self.interleaved(bytes_of[2], bytes_of[3], half, 8, WORDS)
                lanes += [self.interleaved(first, second, part, 4, SUMS) for part in range(2)]
            added = []
            for channel in range(CHANNELS):
                address = builder.add(builder.add(weights, builder.mul(weight_stride, INDEX(channel))), k)
                four = self.load(address, COUNT, 1)
                spread = self.spread(four)
                for lane in lanes:
                    added.append(builder.call(self.multiply, [totals[len(added)], lane, spread]))
            return added

        for number, total in enumerate(self.run(quads, 4 * CHANNELS, body)):
            line = builder.add(sums, builder.mul(sums_stride, INDEX(number // 4)))
            self.store(total, builder.add(line, INDEX(64 * (number % 4))))


class Transposed(Loop):
    """16 channels' sums of 16 lanes, written as 16 rows of 16 channels: what a scalar loop does 30 times slower."""

    def build(self, sums, sums_stride, gain, base, scales, biases, target, target_stride, lanes, real: bool) -> None:
        """Writes it; arguments as of `write_transposed`, and the lane of each stored sum."""
        builder = self.builder
        rows = [self.load(builder.add(sums, builder.mul(sums_stride, INDEX(n))), SUMS, 4) for n in range(16)]
        for _ in range(4):  # four perfect shuffles of 16 rows transpose them
            rows = [self._zipped(rows[i], rows[i + 8], half) for i in range(8) for half in range(2)]
        gains, added = self.spread(gain), self.load(base, SUMS, 4)
        for lane, row in zip(lanes, rows, strict=True):
            row = builder.add(builder.mul(row, gains), added)
            if real:
                row = builder.sitofp(row, REALS)
                row = builder.fadd(builder.fmul(row, self.load(scales, REALS, 4)), self.load(biases, REALS, 4))
            self.store(row, builder.add(target, builder.mul(target_stride, INDEX(lane))))

    def _zipped(self, first, second, half: int):
        chosen = [place for item in range(8) for place in (8 * half + item, 16 + 8 * half + item)]
        return self.builder.shuffle_vector(first, second, ir.Constant(SUMS, chosen))
