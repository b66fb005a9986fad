"""Every kernel over shapes that fill register tiles and leave rests, and over numbers at the ends of their range."""

from collections.abc import Iterator

import numpy as np
from tests.backends.test_cpu_attention import attention_program, ragged_steps
from tests.backends.test_cpu_ops import ELEMENTWISE, INTEGER, numbers
from tests.support.checkpoints import RUNNABLE
from tests.support.single_op import Inputs, cpu, single_step, weight

from sotol.backends.cpu.library import library_for
from sotol.backends.cpu.target import Target
from sotol.program import ops
from sotol.program.trace import Constant, Program
from sotol.quant import ENCODINGS, Float32Array

__all__ = ["kernel_results", "matrix_product"]

TOKENS = (1, 21)  # a lone token; two tiles of eight, five of four, and rests
OUTPUTS = 37  # two panels and a part of one


def kernel_results(target: Target) -> Iterator[tuple[str, Float32Array]]:
    """What each kernel gives on one thread, by the name of the case."""
    kinds = [("linear", encoding, "int8") for encoding in INTEGER] + [("linear", name, "f32") for name in RUNNABLE]
    library_for(target).load([*kinds, *(("embed", name) for name in RUNNABLE)])  # compiled side by side
    for encoding in RUNNABLE:
        for precision in ("int8", "f32") if encoding in INTEGER else ("f32",):
            for size in ("drawn", "extreme"):
                for tokens in TOKENS:
                    program = _linear(encoding, tokens, extreme=size == "extreme")
                    name = f"linear {encoding} {precision} {size} {tokens}"
                    yield name, cpu(program, [single_step(tokens)], target, precision=precision)
        yield f"embed {encoding}", cpu(_embed(encoding), [single_step(OUTPUTS)], target)
    for name, program in _small_ops():
        yield name, cpu(program, [single_step(5)], target)
    for shape in ((3, 1, 32), (4, 2, 64), (2, 2, 80), (4, 1, 256)):
        for codec in ("f16", "f32"):
            for window, cap in ((0, 0.0), (40, 5.0)):
                program = attention_program(*shape, 1, window=window, cap=cap)
                steps, limits = ragged_steps(np.random.default_rng(2), [90, 31], 32)
                name = f"attention {shape} {codec} {window} {cap}"
                yield name, cpu(program, steps, target, codec=codec, limits=limits)


def matrix_product(target: Target) -> Float32Array:
    """One matrix kernel, with integer dot products."""
    return cpu(_linear("Q4_1", 1, extreme=False), [single_step(1)], target, precision="int8")


def _linear(encoding: str, tokens: int, *, extreme: bool) -> Program:
    width = 2 * max(32, ENCODINGS[encoding].values)
    x, w = numbers(3, tokens, width), numbers(4, OUTPUTS, width)
    if extreme:  # all at an end of their range; the first row and the first token nowhere differ in sign
        x, w = (np.where(values > 0, 1, -1) for values in (x, w))
        x[0], w[0] = 1, -1
    inputs = Inputs()
    ops.linear(inputs.rows(x.astype(np.float32), "x"), weight(w.astype(np.float32), encoding))
    return inputs.program


def _embed(encoding: str) -> Program:
    inputs = Inputs()
    ops.embed(weight(numbers(5, OUTPUTS, 512), encoding), inputs._tokens)
    return inputs.program


def _small_ops() -> Iterator[tuple[str, Program]]:
    for name, op in ELEMENTWISE.items():
        inputs = Inputs()
        op(inputs.rows(numbers(6, 5, 176), "x"), inputs.rows(numbers(7, 5, 176), "y"))
        yield name, inputs.program
    inputs = Inputs()
    ops.rms_norm(inputs.rows(numbers(8, 5, 176), "x"), weight(numbers(9, 176)), eps=1e-5)
    yield "rms_norm", inputs.program
    for style in ("halves", "pairs"):
        inputs = Inputs()
        table = Constant("table", np.random.default_rng(10).normal(size=(5, 2, 16)).astype(np.float32))
        x = inputs.rows(numbers(11, 5, 96), "x").reshape("T", 3, 32)
        ops.rope(x, inputs.positions, table, style=style).reshape("T", 96)
        yield f"rope {style}", inputs.program
    inputs = Inputs()
    ops.rows(inputs.rows(numbers(12, 5, 176), "x"), inputs.logit_rows)
    yield "rows", inputs.program
