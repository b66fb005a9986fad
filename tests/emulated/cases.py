"""What every CPU is to give the same bits for: a list of cases that follows from the tables.

Ops come from the rows of tests/program/test_ops.py, encodings from `quant.ENCODINGS` and from the layouts of
tests/support/layouts.py, encoders from `quant.FITS`. test_cases.py checks that no kernel of the backend is left out.
"""

from collections.abc import Iterator

import numpy as np
from tests.backends.test_cpu_attention import program_of, ragged_steps, random_tables
from tests.backends.test_cpu_caches import LAYOUTS as CACHES
from tests.backends.test_cpu_caches import MIXERS
from tests.backends.test_cpu_experts import chosen, recorded, some_choices
from tests.backends.test_cpu_fitting import WIDTH, rows
from tests.backends.test_cpu_ops import ELEMENTWISE, INTEGER, numbers
from tests.emulated.case import Case, Encoded, Steps
from tests.emulated.op_cases import TOKENS, op_programs
from tests.support.checkpoints import RUNNABLE
from tests.support.layers import chunked, mixers_of, plan_of, step_of
from tests.support.layers import program_of as layers_of
from tests.support.layouts import LAYOUTS, random_weight
from tests.support.single_op import Inputs, ended, limits_of, single_step, weight

from sotol.backends.cpu.running import sharing
from sotol.backends.cpu.running.fitting import ROUNDED
from sotol.backends.cpu.running.memory import Codecs
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.activations import GATED
from sotol.program.fuse import quantize_inputs
from sotol.program.program import Constant, Program
from sotol.quant import ENCODINGS, FITS, GRID_FITS, Float32Array, Layout

__all__ = ["cases", "matrix_product"]

OUTPUTS = 37  # two panels and a part of one
LEAST = {"int8": 1280, "f32": 320}  # inputs: a chunk that is unpacked at a time, and a part of one
MORE_TOKENS = (2, 3, 4, 8, 130)  # and 128 of a piece and two of the next, for the encodings below
DIFFERENT = 7  # rows of a matrix: no divisor of a panel's, so that each lane has another one in every panel
FEW_ENCODINGS = ("Q4_1", "Q8_0", "Q6_K", "F16")
F16 = Codecs("f16", "f16")
MIXED = (("wide keys", Codecs("f16", "f32")), ("wide keys", Codecs("f32", "f16")), ("latent", Codecs("f32", "f16")))


def cases() -> Iterator[Case]:
    """Every kernel, over shapes that fill register tiles and leave rests, and numbers at the ends of their range."""
    for encoding in RUNNABLE:
        yield from _products(encoding)
        inputs = Inputs()
        ops.embed(_repeated(numbers(5, OUTPUTS, 512), encoding), inputs._tokens)
        yield _single(f"embed {encoding}", inputs.program, OUTPUTS)
    for name, layout in LAYOUTS.items():
        yield from _layout(name, layout)
    for name, program in op_programs():
        yield _single(f"op {name}", program, TOKENS)
    yield from _small_ops()
    yield from _joined_ops()
    yield from _experts()
    yield from _heads()
    yield from _attention()
    for name, codecs in (*((name, F16) for name in CACHES), *MIXED):
        program = layers_of(CACHES[name], 3, state=40)
        yield _fed(f"caches: {name} {codecs.keys} {codecs.values}", program, [50, 31], codecs)
    for name, mixer in MIXERS.items():
        yield _fed(f"recurrent: {name}", mixers_of([mixer], 3), [40, 13])
    yield from _not_finite()
    yield from _encoders()


def matrix_product() -> Steps:
    """One matrix kernel, with integer dot products."""
    return _single("linear", _linear("Q4_1", 1, OUTPUTS, 64, extreme=False), 1, "int8")


def _single(name: str, program: Program, tokens: int, precision: str = "f32") -> Steps:
    """The program's results, or its last tensor, for one step whose token t has the id t."""
    whole = quantize_inputs(ended(program)) if precision == "int8" else ended(program)
    step = single_step(tokens)
    return Steps(name, whole, [step], limits_of(whole, step))


def _fed(name: str, program: Program, lengths: list[int], codecs: Codecs | str = "f32") -> Steps:
    """All results of a program for texts of these lengths that are fed in chunks."""
    plan = plan_of(program, np.random.default_rng(4), lengths)
    return Steps(name, program, [step_of(plan, spans, 0) for spans in chunked(plan, 32)], plan.limits, codecs)


# ---- encodings


def _products(encoding: str) -> Iterator[Steps]:
    for precision in ("int8", "f32") if encoding in INTEGER else ("f32",):
        shapes = [
            (1, 155, 64),  # a lone token: runs of five panels, four of them side by side
            (27, OUTPUTS, LEAST[precision]),  # 16 + 8 + 2 + 1 tokens, or 6 * 4 + 2 + 1
            *((tokens, OUTPUTS, 64) for tokens in MORE_TOKENS if encoding in FEW_ENCODINGS),
        ]
        for tokens, outputs, least in shapes:
            for size in ("drawn", "extreme"):
                program = _linear(encoding, tokens, outputs, least, extreme=size == "extreme")
                yield _single(f"linear {encoding} {precision} {size} {tokens}", program, tokens, precision)


def _linear(encoding: str, tokens: int, outputs: int, least: int, *, extreme: bool) -> Program:
    values = ENCODINGS[encoding].values
    width = -(-max(least, 2 * values) // values) * values
    x, w = numbers(3, tokens, width), numbers(4, outputs, width)
    if extreme:  # all at an end of their range; the first row and the first token nowhere differ in sign
        x, w = (np.where(values > 0, 1, -1) for values in (x, w))
        x[0], w[0] = 1, -1
    return _product(x.astype(np.float32), _repeated(w.astype(np.float32), encoding))


def _repeated(values: Float32Array, encoding: str) -> Weight:
    """The first of the rows again and again: encoding takes longer than all else here."""
    some = weight(values[:DIFFERENT], encoding)
    data = some.rows()[np.arange(len(values)) % len(some.rows())]
    return Weight.from_bytes("w", some.encoding, values.shape, data.reshape(-1))


def _product(x: Float32Array, w: Weight) -> Program:
    inputs = Inputs()
    ops.linear(inputs.rows(x, "x"), w)
    return inputs.program


def _layout(name: str, layout: Layout) -> Iterator[Steps]:
    """Products with plain blocks, as other files than GGUF's have them: int8 ones where numbers are whole."""
    w, _ = random_weight(layout, OUTPUTS, 2, seed=5)
    precision = "int8" if layout.whole else "f32"
    for tokens in (1, 21):
        program = _product(numbers(6, tokens, w.shape[1]), w)
        yield _single(f"linear of {name}, {precision} {tokens}", program, tokens, precision)
    inputs = Inputs()
    ops.embed(w, inputs._tokens)
    yield _single(f"embed of {name}", inputs.program, OUTPUTS)


def _encoders() -> Iterator[Encoded]:
    """The bytes of blocks, with importance of columns and without."""
    importance = np.exp(np.random.default_rng(2).standard_normal(WIDTH)).astype(np.float32)
    for name in dict.fromkeys((*FITS, *GRID_FITS, *ROUNDED)):
        yield Encoded(f"encode {name}", ENCODINGS[name], rows(6, 1))
        if name in FITS or name in GRID_FITS:
            yield Encoded(f"encode {name}, weighted", ENCODINGS[name], rows(6, 1), importance)


# ---- ops


def _small_ops() -> Iterator[Steps]:
    """Of whole vectors and not; op_cases.py has each op once."""
    for name, op in ELEMENTWISE.items():
        inputs = Inputs()
        op(inputs.rows(numbers(6, 5, 176), "x"), inputs.rows(numbers(7, 5, 176), "y"))
        yield _single(name, inputs.program, 5)
    for width in (176, 90):
        for norm in (ops.rms_norm, ops.layer_norm):
            inputs = Inputs()
            norm(inputs.rows(numbers(8, 5, width), "x"), weight(numbers(9, width)), eps=1e-5)
            yield _single(f"{norm.name} {width}", inputs.program, 5)
    inputs = Inputs()
    ops.rows(inputs.rows(numbers(12, 5, 176), "x"), inputs.logit_rows)
    yield _single("rows", inputs.program, 5)


def _not_finite() -> Iterator[Steps]:
    """NaN and infinities in three of five rows: which rows show it is the same everywhere, too."""
    x, y = numbers(30, 5, 96), numbers(31, 5, 96)
    x[1, 17], x[2, 17], x[4, 17] = np.nan, np.inf, -np.inf
    for name, op in ELEMENTWISE.items():
        inputs = Inputs()
        op(inputs.rows(x, "x"), inputs.rows(y, "y"))
        yield _single(f"not finite: {name}", inputs.program, 5)
    for norm in (ops.rms_norm, ops.layer_norm):
        inputs = Inputs()
        norm(inputs.rows(x, "x"), weight(numbers(9, 96)), eps=1e-5)
        yield _single(f"not finite: {norm.name}", inputs.program, 5)
    for precision in ("int8", "f32"):
        program = _product(x, weight(numbers(32, OUTPUTS, 96), "Q8_0"))
        yield _single(f"not finite: linear {precision}", program, 5, precision)
    tables = random_tables(3, 1, 32, 1)
    for table, value in zip(tables.values(), (np.nan, np.inf, -np.inf), strict=True):
        table[7, 0, 5] = value
    for codec in ("f16", "f32"):
        steps, limits = ragged_steps(np.random.default_rng(2), [90, 31], 32)
        yield Steps(f"not finite: attention {codec}", program_of(tables), steps, limits, codec)


def _joined_ops() -> Iterator[Steps]:
    """Pairs that `fuse.fuse` makes one op of, with int8 activations or without."""
    for tokens in (1, 5):
        for precision in ("int8", "f32"):
            for encoding in ("Q4_K", "F16"):
                inputs = Inputs()
                x, w = inputs.rows(numbers(13, 5, 512), "x"), weight(numbers(14, OUTPUTS * 16, 512), encoding)
                residual = inputs.rows(numbers(15, 5, OUTPUTS * 16), "residual")
                ops.add(residual, ops.linear(ops.rms_norm(x, weight(numbers(9, 512)), eps=1e-5), w))
                yield _single(f"norm, {encoding}, add {precision} {tokens}", inputs.program, tokens, precision)
            for act in GATED:
                inputs = Inputs()
                gate, up = inputs.rows(numbers(16, 5, 512), "gate"), inputs.rows(numbers(17, 5, 512), "up")
                ops.linear(ops.glu(gate, up, act=act), weight(numbers(18, OUTPUTS, 512), "Q4_K"))
                yield _single(f"glu {act}, linear {precision} {tokens}", inputs.program, tokens, precision)
    inputs = Inputs()
    x, y = inputs.rows(numbers(19, 5, 176), "x"), inputs.rows(numbers(20, 5, 176), "y")
    ops.add(y, ops.rms_norm(x, weight(numbers(9, 176)), eps=1e-5))
    yield _single("norm, add", inputs.program, 5)


def _experts() -> Iterator[Steps]:
    """Choices of groups of experts, and what is made of them; products with those of some encodings."""
    for scores in ("softmax", "sigmoid"):
        inputs, bias = Inputs(), Constant("bias", numbers(22, 24) / np.float32(100))
        choice, weights = recorded(
            inputs.rows(numbers(21, 9, 24), "scores"), bias, k=4, scores=scores, groups=6, groups_used=3,
            normalised=True, factor=2.5,
        )  # fmt: skip
        ids = weight(np.arange(24, dtype=np.float32)[:, None, None])
        one = inputs.rows(np.ones((9, 1), np.float32), "one")
        ops.combine(ops.expert_linear(one, choice, ids), weights)
        yield _single(f"groups of experts, {scores}", inputs.program, 9)
    for encoding in FEW_ENCODINGS:
        w = weight(numbers(25, 5, OUTPUTS, 512), encoding)
        for precision in ("int8", "f32") if encoding in INTEGER else ("f32",):
            for tokens, each in ((1, False), (140, False), (9, True)):
                program = _mixture(w, tokens, each=each)
                yield _single(f"experts {encoding} {precision} {tokens}", program, tokens, precision)


def _mixture(w: Weight, tokens: int, *, each: bool) -> Program:
    """Two experts of each token. each: they have rows of their own, and not one for both."""
    inputs, k, (experts, _, width) = Inputs(), 2, w.shape
    x = inputs.rows(numbers(23, tokens, width * (k if each else 1)), "x")
    choice, weights = chosen(inputs, some_choices(24, tokens, experts, k), experts)
    out = ops.combine(ops.expert_linear(x.reshape("T", k, width) if each else x, choice, w), weights)
    ops.add(inputs.rows(numbers(26, tokens, OUTPUTS), "before"), out)
    return inputs.program


def _heads() -> Iterator[Steps]:
    for encoding in FEW_ENCODINGS:
        w = weight(numbers(28, 3, OUTPUTS, 256), encoding)
        for precision in ("int8", "f32") if encoding in INTEGER else ("f32",):
            for tokens in (1, 19):
                inputs = Inputs()
                x = inputs.rows(numbers(27, tokens, 3 * 256), "x").reshape("T", 3, 256)
                ops.head_linear(x, w).reshape("T", 3 * OUTPUTS)
                yield _single(f"heads {encoding} {precision} {tokens}", inputs.program, tokens, precision)


def _attention() -> Iterator[Steps]:
    for shape in ((3, 1, 32), (4, 2, 64), (2, 2, 80), (4, 1, 256), (3, 1, 100)):
        for codec in ("f16", "f32"):
            for window, cap in ((0, 0.0), (40, 5.0)):
                program = program_of(random_tables(*shape, 1), window=window, cap=cap)
                steps, limits = ragged_steps(np.random.default_rng(2), [90, 31], 32)
                yield Steps(f"attention {shape} {codec} {window} {cap}", program, steps, limits, codec)
    program = program_of(random_tables(3, 1, 32, 1), window=40, sinks=numbers(29, 3))
    steps, limits = ragged_steps(np.random.default_rng(2), [90, 31], 32)
    yield Steps("attention with sinks", program, steps, limits, F16)
    # Two spans of 256 keys, for tiles of 24, 7 and 1 tokens: shared out by spans, and whole.
    for lengths, split in (([301, 271], sharing.SPAN_ROWS), ([301, 271], 0), ([271], sharing.SPAN_ROWS)):
        for window in (0, 30):
            program = program_of(random_tables(2, 1, 16, 1), window=window)
            steps, limits = ragged_steps(np.random.default_rng(2), lengths, 270)
            yield Steps(f"attention of {lengths} {window} {split}", program, steps, limits, F16, split)
