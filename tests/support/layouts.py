"""Layouts that no GGUF file has: blocks at random, and what they mean, by the formula, without sotol's decoding."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.support.float_codes import FP4, NF4, e4m3, e5m2
from tests.support.single_op import Inputs, cpu, single_step

from sotol.backends.cpu.target import Target
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.quant import FACTORS, BlockParts, Float32Array, Layout, join_plain, plain_encoding

__all__ = ["BY_LEVEL", "LAYOUTS", "layout_results", "random_fields", "random_weight", "values_of"]

CURVE = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # as IQ4_NL's: ggml-common.h
DOUBLED = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # twice E2M1's numbers: OCP Microscaling v1.0

LAYOUTS = {
    "a table": Layout(4, 32, numbers=CURVE),
    "a table of sixteens with factors": Layout(4, 16, 2, numbers=DOUBLED, factor="f32"),
    "two signs": Layout(1, 64, 2, numbers=(-1, 1), minimum=True),
    "three bits of 64": Layout(3, 64, numbers=4, factor="f32"),
    "a table of eight": Layout(3, 16, 4, numbers=(-128, -9, 0, 1, 2, 3, 64, 127), scales=True, minimum=True),
    "a table of four with powers of two": Layout(2, 32, 2, numbers=(-3, 0, 1, 9), factor="e8m0"),
    "a table of sixteens with scales and minimums": Layout(4, 16, 16, numbers=CURVE, scales=True, minimum=True),
    "zero points of 128": Layout(4, 128, zeros=True),
    "zero points of sixteens": Layout(6, 16, 4, zeros=True),
    "minimums of 64": Layout(4, 64, factor="f32", minimum=True),
    "groups of 96": Layout(5, 96, numbers=16, factor="f32"),
    "the largest block": Layout(8, 512, numbers=128),
    "all at once": Layout(8, 64, 3, factor="f32", scales=True, minimum=True, zeros=True),
    "bfloat16": Layout(4, 64, factor="bf16", minimum=True),
    "scales in floats": Layout(4, 16, 16, numbers=DOUBLED, factor="f32", scales=True, floating=True),
    "floats of 8 bits": Layout(8, 128, numbers="e4m3", factor="f32"),
    "wider floats of 8 bits": Layout(8, 32, numbers="e5m2", factor="bf16"),
    "floats of 4 bits": Layout(4, 64, numbers="nf4", factor="f32"),
    "other floats of 4 bits": Layout(4, 64, numbers="fp4", factor="f32"),
}
# Where a level's own instructions are at work: looked up bytes, and bytes without the bias of Q8_0.
BY_LEVEL = ["a table of sixteens with scales and minimums", "all at once", "floats of 4 bits"]


def random_fields(layout: Layout, rows: int, blocks: int, seed: int) -> BlockParts:
    """Every code, factors of either sign and very different size, every multiplier and zero point: [rows, blocks]."""
    rng = np.random.default_rng(seed)
    lead = (rows, blocks)
    shape = lead if layout.factors == 1 else (*lead, layout.factors)

    def factors() -> Any:
        if not FACTORS[layout.factor].signed:
            return rng.integers(110, 126, shape, np.uint8)  # E8M0: small numbers; E4M3: large ones
        drawn = rng.normal(size=shape) * np.exp(rng.normal(size=shape)) / 64
        if layout.factor == "bf16":
            return (drawn.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        return drawn.astype(FACTORS[layout.factor].dtype)

    def small(low: int, high: int, kind: npt.DTypeLike) -> Any:
        return rng.integers(low, high, (*lead, layout.groups), kind)

    codes = rng.integers(0, 1 << layout.bits, (*lead, layout.groups, layout.width), np.uint8)
    if layout.bits == 8 and not layout.whole:  # without infinities and NaN, of which there would be some in every sum
        codes = np.where(np.isfinite(float_numbers(layout)[codes]), codes, np.uint8(1))
    return BlockParts(
        codes,
        factors(),
        factors() if layout.minimum else None,
        (small(0, 127, np.uint8) if layout.floating else small(-128, 128, np.int8)) if layout.scales else None,
        small(-128, 128, np.int8) if layout.scales and layout.minimum else None,
        small(0, 256, np.uint8) if layout.zeros else None,
    )


def float_numbers(layout: Layout) -> npt.NDArray[np.float64]:
    """What the codes of a layout with floats stand for, by the formulas of their formats."""
    if layout.numbers in ("e4m3", "e5m2"):
        return {"e4m3": e4m3, "e5m2": e5m2}[layout.numbers](np.arange(256)).astype(np.float64)
    return {"nf4": NF4, "fp4": FP4}[str(layout.numbers)].astype(np.float64)


def values_of(layout: Layout, fields: BlockParts) -> npt.NDArray[np.float64]:
    """value = (d * scale) * (number - zero) + (m * minimum), in float64: [rows, blocks * values]."""
    one = np.ones(fields.q.shape[:-1])
    if isinstance(layout.numbers, str):
        table: Any = float_numbers(layout)
    else:
        table = layout.numbers if isinstance(layout.numbers, tuple) else np.arange(256) - layout.numbers
    scales: Any = fields.scales
    if layout.floating:
        scales = e4m3(scales) / 2

    def of_groups(factors: Any, multipliers: Any) -> Any:
        wide = (
            FACTORS[layout.factor].decode(factors).astype(np.float64).reshape(*fields.q.shape[:2], -1)
        )  # [rows, blocks, 1 or groups]
        return wide * (one if multipliers is None else multipliers.astype(np.float64))

    numbers = np.array(table, np.float64)[fields.q]
    if fields.zeros is not None:
        numbers = numbers - fields.zeros[..., None]
    values = numbers * of_groups(fields.d, scales)[..., None]
    if fields.m is not None:
        values = values + of_groups(fields.m, fields.minimums)[..., None]
    flat: npt.NDArray[np.float64] = values.reshape(len(values), -1)
    return flat


def random_weight(layout: Layout, rows: int, blocks: int, seed: int) -> tuple[Weight, npt.NDArray[np.float64]]:
    """A matrix of plain blocks, and its values."""
    fields = random_fields(layout, rows, blocks, seed)
    data = join_plain(layout, fields).reshape(-1)
    weight = Weight.from_bytes("w", plain_encoding(layout), (rows, blocks * layout.values), data)
    return weight, values_of(layout, fields)


def layout_results(target: Target, threads: int) -> Iterator[tuple[str, Float32Array]]:
    """What kernels with instructions of a level's own give, by the name of the case: products, and rows of a table."""
    for name in BY_LEVEL:
        weight, _ = random_weight(LAYOUTS[name], 37, 2, seed=5)
        x = np.random.default_rng(6).normal(size=(21, weight.shape[1])).astype(np.float32)
        for precision in ("int8", "f32"):
            for tokens in (1, 21):
                inputs = Inputs()
                ops.linear(inputs.rows(x[:tokens], "x"), weight)
                result = cpu(inputs.program, [single_step(tokens)], target, threads=threads, precision=precision)
                yield f"{name}, {precision} {tokens}", result
        inputs = Inputs()
        ops.embed(weight, inputs._tokens)
        yield f"{name}, embed", cpu(inputs.program, [single_step(37)], target, threads=threads)
