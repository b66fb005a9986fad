"""bitsandbytes' weights: floats of 4 bits by a table (NF4, FP4), and whole numbers of 8 bits.

NF4: QLoRA (Dettmers et al. 2023, arXiv 2305.14314); 8 bits: LLM.int8() (arXiv 2208.07339). Layout: bitsandbytes'
QuantState and Int8Params. Of 4 bits, `weight` has all codes of the matrix one after another, two in a byte, the first
in its high half; `weight.absmax` has a factor for each `blocksize` of them, or a code for one (double quantisation):
its number in `weight.nested_quant_map`, times `weight.nested_absmax`, plus an offset, in float32. Sizes are JSON in
`weight.quant_state.bitsandbytes__nf4`. Of 8 bits, `SCB` has the largest magnitude of each row, which 127 stands for;
columns of outliers are rounded at run time from activations, so the weights have them as all others.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sotol.formats.quantised.grids import grid_of, width_of
from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import BYTE, Tensors, numbers, unpacked
from sotol.formats.strict_json import parse_object
from sotol.formats.weights import Weight
from sotol.quant import NUMBERS, BlockParts, Float32Array, Layout, UInt8Array

__all__ = ["join_bitsandbytes"]

STATE = ".weight.quant_state.bitsandbytes__"
KINDS = ("nf4", "fp4")


class State(NamedTuple):
    """What the JSON of a weight's quant_state says."""

    shape: tuple[int, int]
    block: int  # numbers that share a factor
    nested: int  # factors that share a factor of their own; 0: they are numbers
    offset: float  # of nested factors


def join_bitsandbytes(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "bitsandbytes"."""
    settings.ignore(
        "bnb_4bit_compute_dtype", "bnb_4bit_quant_storage", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant",
        "llm_int8_enable_fp32_cpu_offload", "llm_int8_has_fp16_weight", "llm_int8_skip_modules", "llm_int8_threshold",
        "load_in_4bit", "load_in_8bit", "_load_in_4bit", "_load_in_8bit",
    )  # fmt: skip
    settings.finish()
    for kind in KINDS:
        for name in tensors.ending(STATE + kind):
            put_fours(tensors, name, kind)
    for name in tensors.ending(".SCB"):
        put_bytes(tensors, name)


def put_bytes(tensors: Tensors, name: str) -> None:
    """A weight of 8 bits: number * SCB / 127."""
    codes, scale = tensors.take(f"{name}.weight", "I8"), tensors.take(f"{name}.SCB", "F32")
    form = tensors.find(f"{name}.weight_format", "U8")
    if form is not None and numbers(form)[0, 0] != 0:
        raise tensors.fail(form.name, f"is {numbers(form)[0, 0]}; sotol supports 0, rows one after another")
    grid, size = grid_of(tensors, scale, codes.shape), width_of(tensors, codes.name, codes.shape[-1], codes.shape[-1])

    def read(first: int, end: int) -> BlockParts:
        q = numbers(codes, first, end).view(np.uint8).reshape(end - first, -1, 1, size) ^ np.uint8(0x80)
        return BlockParts(q, grid.read(first, end, size, q.shape[1]) / np.float32(127))

    tensors.put(f"{name}.weight", codes.shape, Layout(8, size, numbers=128, factor="f32"), (codes, scale), read)


def put_fours(tensors: Tensors, name: str, kind: str) -> None:
    """A weight of NF4 or FP4: table[code] * factor."""
    state = state_of(tensors, tensors.take(name + STATE + kind, "U8"), kind)
    given = tensors.take(f"{name}.weight", "U8", "I8", "F16", "BF16", "F32")  # whatever holds the bytes
    if given.nbytes * 2 != math.prod(state.shape) or state.shape[1] % 2:
        raise tensors.fail(given.name, f"has {given.nbytes} bytes, and should have two codes in each of {state.shape}")
    data = given.rows().reshape(state.shape[0], -1)
    table = numbers(tensors.take(f"{name}.weight.quant_map", "F32"))[0]
    if not np.array_equal(table, NUMBERS[kind]):
        raise tensors.fail(f"{name}.weight.quant_map", f"is another table than that of {kind}")
    count = -(-math.prod(state.shape) // state.block)
    factors = in_column(tensors.take(f"{name}.weight.absmax", "U8" if state.nested else "F32", shape=(count,)))
    factor = nested(tensors, name, count, state) if state.nested else None
    size = width_of(tensors, given.name, state.shape[1], state.block)
    rows = Weight.from_bytes(given.name, BYTE, data.shape, data.reshape(-1))

    def read(first: int, end: int) -> BlockParts:
        codes = numbers(rows, first, end)
        turned = codes >> np.uint8(4) | codes << np.uint8(4)  # the first code in the low half
        q = unpacked(turned, 4).reshape(end - first, -1, 1, size)
        at = np.arange(first, end)[:, None] * state.shape[1] + np.arange(q.shape[1]) * size
        at //= state.block
        begin = int(at[0, 0])
        found = numbers(factors, begin, int(at[-1, -1]) + 1)[:, 0]
        return BlockParts(q, (found if factor is None else factor(found, begin))[at - begin])

    tensors.put(f"{name}.weight", state.shape, Layout(4, size, numbers=kind, factor="f32"), (rows, factors), read)


def in_column(vector: Weight) -> Weight:
    """A vector as a matrix of one column, of which rows can be read."""
    return Weight.from_bytes(vector.name, vector.encoding, (vector.shape[0], 1), vector.rows().reshape(-1))


def nested(tensors: Tensors, name: str, count: int, state: State) -> Callable[[UInt8Array, int], Float32Array]:
    """factors(codes, first): what codes of factors stand for; first: the number of the first of them."""
    table = numbers(tensors.take(f"{name}.weight.nested_quant_map", "F32", shape=(256,)))[0]
    own = numbers(tensors.take(f"{name}.weight.nested_absmax", "F32", shape=(-(-count // state.nested),)))[0]

    def factors(codes: UInt8Array, first: int) -> Float32Array:
        scale = own[(np.arange(len(codes)) + first) // state.nested]
        found: Float32Array = table[codes] * scale + np.float32(state.offset)
        return found

    return factors


def state_of(tensors: Tensors, blob: Weight, kind: str) -> State:
    """The sizes in a weight's quant_state."""
    said = parse_object(numbers(blob).tobytes(), f"{tensors.path}: {blob.name}")
    shape, block = said.get("shape"), said.get("blocksize")
    nested_block, offset = said.get("nested_blocksize", 0), said.get("nested_offset", 0.0)
    good = (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(x) is int and 0 < x < 1 << 31 for x in (*shape, block))
        and type(nested_block) is int
        and 0 <= nested_block < 1 << 31
        and isinstance(offset, int | float)
        and said.get("quant_type") == kind
        and said.get("nested_dtype", "float32") == "float32"
    )
    if not good:
        raise tensors.fail(blob.name, "is not the JSON of such a weight's quant_type, shape, blocksize and factors")
    return State(tuple(shape), block, nested_block, offset)  # type: ignore[arg-type]
