"""Every kernel over shapes that fill register tiles and leave rests, and over numbers at the ends of their range."""

from collections.abc import Iterator
from contextlib import closing
from unittest import mock

import numpy as np
from tests.backends.test_cpu_attention import attention_program, ragged_steps
from tests.backends.test_cpu_ops import ELEMENTWISE, INTEGER, numbers
from tests.support.checkpoints import RUNNABLE
from tests.support.layers import Layer, chunked, plan_of, program_of, step_of
from tests.support.layouts import layout_results
from tests.support.single_op import Inputs, cpu, single_step, weight

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.building.library import library_for
from sotol.backends.cpu.running import sharing
from sotol.backends.cpu.running.memory import Codecs
from sotol.backends.cpu.target import Target
from sotol.program import ops
from sotol.program.memory import Paged
from sotol.program.program import Constant, Program
from sotol.quant import ENCODINGS, Float32Array

__all__ = ["kernel_results", "matrix_product"]

OUTPUTS = 37  # two panels and a part of one
LEAST = {"int8": 1280, "f32": 320}  # inputs: a chunk that is unpacked at a time, and a part of one
MORE_TOKENS = (2, 3, 4, 8, 130)  # and 128 of a piece and two of the next, for the encodings below
FEW_ENCODINGS = ("Q4_1", "Q8_0", "Q6_K", "F16")


def kernel_results(target: Target) -> Iterator[tuple[str, Float32Array]]:
    """What each kernel gives on one thread, by the name of the case."""
    kinds = {name: ENCODINGS[name].kind for name in RUNNABLE}
    products = [("linear", kinds[name], "int8") for name in INTEGER]
    products += [("linear", kind, "f32") for kind in kinds.values()]
    library_for(target).load([*products, *(("embed", kind) for kind in kinds.values())])  # compiled side by side
    for encoding in RUNNABLE:
        yield from _products(target, encoding)
        yield f"embed {encoding}", cpu(_embed(encoding), [single_step(OUTPUTS)], target)
    yield from layout_results(target, threads=1)
    for name, program in _joined_ops():
        for tokens in (1, 5):
            for precision in ("int8", "f32"):
                result = cpu(program, [single_step(tokens)], target, precision=precision)
                yield f"{name} {precision} {tokens}", result
    for name, program in _small_ops():
        yield name, cpu(program, [single_step(5)], target)
    yield from _short_contexts(target)
    yield from _caches(target)
    yield from _long_contexts(target)


def matrix_product(target: Target) -> Float32Array:
    """One matrix kernel, with integer dot products."""
    return cpu(_linear("Q4_1", 1, OUTPUTS, 64, extreme=False), [single_step(1)], target, precision="int8")


def _products(target: Target, encoding: str) -> Iterator[tuple[str, Float32Array]]:
    for precision in ("int8", "f32") if encoding in INTEGER else ("f32",):
        shapes = [
            (1, 155, 64),  # a lone token: runs of five panels, four of them side by side
            (27, OUTPUTS, LEAST[precision]),  # 16 + 8 + 2 + 1 tokens, or 6 * 4 + 2 + 1
            *((tokens, OUTPUTS, 64) for tokens in MORE_TOKENS if encoding in FEW_ENCODINGS),
        ]
        for tokens, outputs, least in shapes:
            for size in ("drawn", "extreme"):
                program = _linear(encoding, tokens, outputs, least, extreme=size == "extreme")
                name = f"linear {encoding} {precision} {size} {tokens}"
                yield name, cpu(program, [single_step(tokens)], target, precision=precision)


def _linear(encoding: str, tokens: int, outputs: int, least: int, *, extreme: bool) -> Program:
    values = ENCODINGS[encoding].values
    width = -(-max(least, 2 * values) // values) * values
    x, w = numbers(3, tokens, width), numbers(4, outputs, width)
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


def _short_contexts(target: Target) -> Iterator[tuple[str, Float32Array]]:
    for shape in ((3, 1, 32), (4, 2, 64), (2, 2, 80), (4, 1, 256), (3, 1, 100)):
        for codec in ("f16", "f32"):
            for window, cap in ((0, 0.0), (40, 5.0)):
                program = attention_program(*shape, 1, window=window, cap=cap)
                steps, limits = ragged_steps(np.random.default_rng(2), [90, 31], 32)
                name = f"attention {shape} {codec} {window} {cap}"
                yield name, cpu(program, steps, target, codecs=codec, limits=limits)


def _caches(target: Target) -> Iterator[tuple[str, Float32Array]]:
    """Layouts in which keys and values differ, in width or codec; and a recurrent state."""
    for layer in (Layer(3, Paged(1, 96, 32)), Layer(4, Paged(2, 20, 120, 30)), Layer(1, Paged(1, 40, 9, latent=True))):
        program = program_of([layer], 3, state=40)
        plan = plan_of(program, np.random.default_rng(4), [90, 31])
        for codecs in (Codecs("f16", "f32"), Codecs("f32", "f16")):
            with closing(CpuRunner(program, plan.limits, threads=1, codecs=codecs, target=target)) as backend:
                for at, spans in enumerate(chunked(plan, 32)):
                    for name, rows in backend.run(step_of(plan, spans, 0)).items():
                        yield f"{name} of {layer} {codecs.keys} {codecs.values} {at}", rows.copy()


def _long_contexts(target: Target) -> Iterator[tuple[str, Float32Array]]:
    """Two spans of 256 keys, for tiles of 24, 7 and 1 tokens: shared out by spans, and whole."""
    for lengths, split in (([301, 271], sharing.SPAN_ROWS), ([301, 271], 0), ([271], sharing.SPAN_ROWS)):
        for window in (0, 30):
            program = attention_program(2, 1, 16, 1, window=window)
            steps, limits = ragged_steps(np.random.default_rng(2), lengths, 270)
            with mock.patch.object(sharing, "SPAN_ROWS", split):
                result = cpu(program, steps, target, codecs="f16", limits=limits)
            yield f"attention of {lengths} {window} {split}", result


def _joined_ops() -> Iterator[tuple[str, Program]]:
    """Pairs that `fuse.fuse` makes one op of, with int8 activations or without."""
    for encoding in ("Q4_K", "F16"):
        inputs = Inputs()
        x, w = inputs.rows(numbers(13, 5, 512), "x"), weight(numbers(14, OUTPUTS * 16, 512), encoding)
        residual = inputs.rows(numbers(15, 5, OUTPUTS * 16), "residual")
        ops.add(residual, ops.linear(ops.rms_norm(x, weight(numbers(9, 512)), eps=1e-5), w))
        yield f"norm, {encoding}, add", inputs.program
    for act in ("silu", "gelu_tanh"):
        inputs = Inputs()
        gate, up = inputs.rows(numbers(16, 5, 512), "gate"), inputs.rows(numbers(17, 5, 512), "up")
        ops.linear(ops.glu(gate, up, act=act), weight(numbers(18, OUTPUTS, 512), "Q4_K"))
        yield f"glu {act}, linear", inputs.program
    inputs = Inputs()
    x, y = inputs.rows(numbers(19, 5, 176), "x"), inputs.rows(numbers(20, 5, 176), "y")
    ops.add(y, ops.rms_norm(x, weight(numbers(9, 176)), eps=1e-5))
    yield "norm, add", inputs.program


def _small_ops() -> Iterator[tuple[str, Program]]:
    for name, op in ELEMENTWISE.items():
        inputs = Inputs()
        op(inputs.rows(numbers(6, 5, 176), "x"), inputs.rows(numbers(7, 5, 176), "y"))
        yield name, inputs.program
    for width in (176, 90):
        inputs = Inputs()
        ops.rms_norm(inputs.rows(numbers(8, 5, width), "x"), weight(numbers(9, width)), eps=1e-5)
        yield f"rms_norm {width}", inputs.program
        inputs = Inputs()
        ops.layer_norm(inputs.rows(numbers(8, 5, width), "x"), weight(numbers(9, width)), eps=1e-5)
        yield f"layer_norm {width}", inputs.program
    inputs = Inputs()
    table = Constant("table", np.random.default_rng(10).normal(size=5).astype(np.float32))
    heads = inputs.rows(numbers(8, 5, 60), "x").reshape("T", 5, 12)
    ops.scale_by_position(heads, inputs.positions, table).reshape("T", 60)
    yield "scale_by_position", inputs.program
    inputs = Inputs()
    heads = inputs.rows(numbers(8, 5, 60), "x").reshape("T", 5, 12)
    ops.rms_norm(heads, weight(numbers(9, 12)), eps=1e-5).reshape("T", 60)
    yield "rms_norm of heads", inputs.program
    for style in ("halves", "pairs"):
        inputs = Inputs()
        table = Constant("table", np.random.default_rng(10).normal(size=(5, 2, 16)).astype(np.float32))
        x = inputs.rows(numbers(11, 5, 96), "x").reshape("T", 3, 32)
        ops.rope(x, inputs.positions, table, style=style).reshape("T", 96)
        yield f"rope {style}", inputs.program
    inputs = Inputs()
    ops.rows(inputs.rows(numbers(12, 5, 176), "x"), inputs.logit_rows)
    yield "rows", inputs.program
