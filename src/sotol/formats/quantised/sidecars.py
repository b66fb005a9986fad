"""NVFP4 in GGUF files whose matrices have a factor of their own, in a tensor beside them.

As llama.cpp has it (llama-model.cpp, the tensors named "scale"): the product with `blk.0.ffn_up.weight` is multiplied
by `blk.0.ffn_up.scale`, one number, or one for each expert. `input_scale`, for quantised activations, is not used.
Gemma 4 has weights of its own by such names, which are in every file of it and stay what they are.
"""

import re

import numpy as np

from sotol.formats.quantised.grids import grid_of, width_of
from sotol.formats.quantised.tensors import Tensors, numbers
from sotol.formats.weights import Weight
from sotol.quant import BlockParts, Layout
from sotol.quant.curves import DOUBLED_E2M1

__all__ = ["SCALE", "join_sidecars"]

SCALE = ".scale"
OWN = {"gemma4": re.compile(r"blk\.\d+\.(ffn_gate_inp|ffn_down_exps)")}  # by architecture: theirs are the model's own


def join_sidecars(tensors: Tensors, architecture: object = None) -> None:
    """Put each factor of a matrix in NVFP4 into the matrix. FormatError for one of another shape."""
    own = OWN.get(str(architecture))
    for name in tensors.ending(SCALE):
        weight = tensors.weights.get(f"{name}.weight")
        if weight is not None and weight.encoding.name == "NVFP4" and not (own and own.fullmatch(name)):
            tensors.find(f"{name}.input_scale", "F32")
            put_scaled(tensors, f"{name}.weight", tensors.take(f"{name}.weight", "NVFP4"), name + SCALE)


def put_scaled(tensors: Tensors, name: str, blocks: Weight, scale: str) -> None:
    """The matrix times its factor: the E4M3 of a group stay, and multiply the factor."""
    whole, shape, split = tensors.take(scale, "F32"), blocks.shape, blocks.encoding.split
    assert split is not None
    grid, size = grid_of(tensors, whole, shape), width_of(tensors, name, shape[-1], shape[-1])
    layout = Layout(4, 16, size // 16, numbers=DOUBLED_E2M1, factor="f32", scales=True, floating=True)

    def read(first: int, end: int) -> BlockParts:
        parts = split(numbers(blocks, first, end))
        q, scales = parts.q.reshape(end - first, -1, size // 16, 16), np.asarray(parts.d, np.uint8)
        d = grid.read(first, end, size, q.shape[1])
        return BlockParts(q, d, scales=scales.reshape(q.shape[:3]))

    tensors.put(name, shape, layout, (blocks, whole), read)
