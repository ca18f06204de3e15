"""The native kernels for processors of every kind: as assembly, and run as far as this machine's processor allows."""

import os
import re
from functools import cache, partial
from pathlib import Path

import fresh
import pytest

pytest.importorskip("numba")
import llvmlite.binding as llvm
from llvmlite import ir

from axtrain.emulation.native.depthwise import emit_add_channels, emit_add_taps
from axtrain.emulation.native.pair_products import PIXELS, emit_add_pairs, emit_panel_row
from axtrain.emulation.native.row_vectors import emit_add_rows, emit_build_rows
from axtrain.emulation.native.vectors import adds_pairs, emit_transpose

ROOT = Path(__file__).resolve().parents[2]
X86, LINUX_ARM, MAC_ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "arm64-apple-macosx"
# Name: (triple, processor, features).
TARGETS = {
    "x86-64": (X86, "x86-64", ""),
    "haswell": (X86, "haswell", ""),
    "icelake-server": (X86, "icelake-server", ""),
    "aarch64": (LINUX_ARM, "generic", "+neon"),
    "apple-m1": (MAC_ARM, "apple-m1", ""),
}
INTEL, ARM = ("x86-64", "haswell", "icelake-server"), ("aarch64", "apple-m1")


def rows(builder, arguments, triple, *, length=4, channels=32, wide=False):
    emit_add_rows(builder, arguments, length=length, channels=channels, wide=wide, pairs=adds_pairs(triple))


def plain(emit, **options):
    return lambda builder, arguments, triple: emit(builder, arguments, **options)


# Name: (function of builder, arguments and triple; how many arguments).
KERNELS = {
    **{f"rows of {n}": (partial(rows, length=n), 7) for n in (1, 2, 4)},
    "rows of 16 channels": (partial(rows, channels=16), 7),
    "wide rows": (partial(rows, length=1, wide=True), 7),
    "pairs": (plain(emit_add_pairs, pixels=PIXELS), 7),
    "rescaled pairs": (plain(emit_add_pairs, pixels=PIXELS, rescaled=True), 11),
    "panel row": (plain(emit_panel_row), 9),
    "build rows": (plain(emit_build_rows), 5),
    "channels": (plain(emit_add_channels), 5),
    "taps 3x3": (plain(emit_add_taps, rows=3, columns=3), 7),
    "taps 5x5": (plain(emit_add_taps, rows=5, columns=5), 7),
    "transpose words": (plain(emit_transpose, element=ir.IntType(16)), 4),
    "transpose double words": (plain(emit_transpose, element=ir.IntType(32)), 4),
}


def machine(target):
    """LLVM's description of a target, where this llvmlite has it."""
    triple, name, features = TARGETS[target]
    if not hasattr(llvm, "create_pass_builder"):
        pytest.skip("this llvmlite has no pass builder")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        found = llvm.Target.from_triple(triple)
    except RuntimeError as error:
        pytest.skip(f"this llvmlite has no {triple}: {error}")
    return found.create_target_machine(cpu=name, features=features, opt=3)


@cache
def assembly(target, kernel):
    """(instruction, operands) of each line of a kernel's assembly, compiled for a target and not run."""
    triple = TARGETS[target][0]
    made, (emit, count) = machine(target), KERNELS[kernel]
    module = ir.Module(name="kernel")
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * count), "kernel")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    emit(builder, list(function.args), triple)
    builder.ret_void()
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    passes = llvm.create_pass_builder(made, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    lines = re.findall(r"^\t([a-z][\w.]*)\t?(.*)$", made.emit_assembly(parsed), re.MULTILINE)
    return [(name, operands) for name, operands in lines]


def count(target, kernel, pattern):
    """How many instructions match, the suffixes of their operands' lanes included."""
    return sum(bool(re.search(pattern, f"{name} {operands}")) for name, operands in assembly(target, kernel))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles_for_every_target_and_calls_nothing(target, kernel):
    assert assembly(target, kernel)
    assert not count(target, kernel, r"^(call|callq|bl|blr)\b")
    assert not count(target, kernel, r"^(i?div[bwlq]? |[su]div)")
    # Where the second half of the windows begins takes one multiplication, before the loop.
    assert count(target, kernel, r"^(imul.*(\(|%[re]?.[xi]$)|mul |madd)") <= (2 if kernel.startswith("taps") else 0)


@pytest.mark.parametrize("target", TARGETS)
def test_outputs_are_rounded_twice_as_the_plain_ones_are(target):
    """``sum * scale + bias`` in one instruction would be rounded once, and differ."""
    assert count(target, "rescaled pairs", r"^(v?mulps|fmul)") >= 2
    assert not count(target, "rescaled pairs", r"^(v?fn?m(add|sub)|fmla|fmls)")


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("target", INTEL)
def test_rows_on_x86_are_added_as_words_and_widened_in_pairs(target, length):
    kernel, lanes = f"rows of {length}", {"x86-64": 8, "haswell": 16, "icelake-server": 32}[target]
    assert count(target, kernel, "^v?paddw ") >= 2 * (length - 1) * 32 // lanes
    assert count(target, kernel, "^(v?pmaddwd|vpdpwssd) ") >= 2 * 32 // lanes
    assert not count(target, kernel, "^v?(pmovsx|psra|pmull)")  # the ways around that cost more


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("target", ARM)
def test_rows_on_arm_are_widened_as_they_are_added(target, length):
    kernel = f"rows of {length}"
    assert count(target, kernel, r"^saddw\b") == count(target, kernel, r"^saddw2\b") >= 2 * 32 // 8
    assert count(target, kernel, r"^add\b.*\.8h|^add\.8h") >= 2 * (length - 1) * 32 // 8
    assert not count(target, kernel, r"^(sshll|sxtl|smull|zip)")


@pytest.mark.parametrize("kernel, products", [("pairs", 2 * PIXELS), ("channels", 2)])
@pytest.mark.parametrize("target", TARGETS)
def test_factors_are_multiplied_and_added_in_pairs(target, kernel, products):
    """`products` vectors of 16 words."""
    if target in ARM:
        assert count(target, kernel, r"^(smull|smlal)2?\b") >= 2 * products
    else:
        wanted = products * (2 if target == "x86-64" else 1)
        assert count(target, kernel, "^(v?pmaddwd|vpdpwssd) ") >= wanted
        assert not count(target, kernel, "^v?(pmull|pmulh|pmovsx)")


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_transposed_is_interleaved(target):
    interleaving = r"^(v?punpck|v?unpck|zip[12]|st2)"
    assert count(target, "build rows", interleaving) >= (24 if target in ("haswell", "icelake-server") else 48)
    assert count(target, "transpose words", interleaving) >= 20
    assert count(target, "transpose double words", interleaving) >= 6


@pytest.mark.parametrize("kernel", ["taps 3x3", "taps 5x5", "wide rows"])
@pytest.mark.parametrize("target", TARGETS)
def test_32_bit_sums_are_added_as_vectors(target, kernel):
    assert count(target, kernel, r"^v?paddd |^add\b.*\.4s|^add\.4s") >= 8


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_instruction_beyond_the_processor(kernel):
    """LLVM sees to it; what would break it is an instruction asked for by name."""
    assert not count("x86-64", kernel, r"%[yz]mm|^v[mp]|\{%k")
    assert not count("haswell", kernel, r"%zmm|\{%k|%xmm(1[6-9]|[23]\d)|%ymm(1[6-9]|[23]\d)")
    if kernel in ("rows of 4", "pairs", "build rows"):
        assert count("haswell", kernel, "%ymm")


COMPARISON = """
import sys
sys.path.insert(0, {folder!r})
import native_loops
with native_loops.counted() as counts:
    compared, wrong = native_loops.compare({count}, {seed}, tables={tables}, outputs={outputs},
                                            report=print, widths=({low}, {high}))
print(sorted(counts), native_loops.target())
print(compared, wrong)
"""
# The processor that numba compiles for; nothing is set for this machine's own.
PROCESSORS = {
    "SSE2": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""},
    "this machine's": {},
}


def compared_on(processor, folder=None, **options):
    """Runs `native_loops.compare` in a new process; (kernels called and target, sums compared, differences).

    Compiling takes 15 s for each processor, so the kernels come from where all tests find them, unless `folder` is to
    hold new ones.
    """
    if processor != "this machine's" and not llvm.get_process_triple().startswith("x86_64"):
        pytest.skip("another architecture's processors")
    if processor == "AVX2" and not llvm.get_host_cpu_features().get("avx2"):
        pytest.skip("this machine has no AVX2")
    code = COMPARISON.format(folder=str(Path(__file__).parent), **options)
    environment = {**os.environ, **PROCESSORS[processor]} | ({"NUMBA_CACHE_DIR": str(folder)} if folder else {})
    done = fresh.run(code, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    *_, how, figures = done.stdout.splitlines()
    assert figures.split()[1] == "0", done.stdout[-4000:]
    return how, *map(int, figures.split())


@pytest.mark.parametrize("processor", PROCESSORS)
def test_random_products_are_bit_exact(processor):
    options = {"count": 40_000, "seed": 1, "tables": 130, "outputs": 150, "low": 2, "high": 8}
    how, compared, wrong = compared_on(processor, **options)
    assert compared >= 40_000 and wrong == 0
    for kernel in ("weights stay", "pixels stay", "taps apart", "factors", "depthwise factors", "depthwise look-ups"):
        assert f"'{kernel}'" in how
    assert PROCESSORS[processor].get("NUMBA_CPU_NAME", llvm.get_host_cpu_name()) in how


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_million_random_products_are_bit_exact(processor, tmp_path):
    options = {"count": 1_000_000, "seed": 2, "tables": 130, "outputs": 2000, "low": 2, "high": 11}
    how, compared, wrong = compared_on(processor, tmp_path, **options)
    print(how, compared, wrong)
    assert compared >= 1_000_000 and wrong == 0
