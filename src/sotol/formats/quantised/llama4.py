"""Llama 4's experts where they are quantised as the model has them: transposed, all in one tensor.

    …feed_forward.experts.gate_up_proj [E, D, 2f], down_proj [E, f, D], in floats of 8 bits or two of 4 bits in a byte

FBGEMM's form (transformers' FbgemmFp8Llama4TextExperts): factors of outputs are `gate_up_proj_scale` [E, 1, 2f] and
`down_proj_scale` [E, D, 1]. ModelOpt's: `gate_up_proj_weight_scale` is one factor; of NVFP4 E4M3 [E, D / 16, 2f], and
`gate_up_proj_weight_scale_2` one factor. Here they become what other experts are: [E, outputs, inputs], with the names
and shapes of factors that schemes expect. No factor belongs to several outputs, so codes only move.
"""

import re

from sotol.formats.quantised.tensors import Tensors
from sotol.formats.rearranged import columns_of
from sotol.formats.weights import Weight

__all__ = ["turn_experts"]

EXPERTS = re.compile(r"(.*\.feed_forward\.)experts\.(gate_up_proj|down_proj)")
BYTES = ("F8_E4M3", "F8_E5M2", "U8")
MODELOPT = {"_weight_scale": "_scale", "_weight_scale_2": "_scale_2", "_input_scale": ".input_scale"}


def turn_experts(tensors: Tensors) -> None:
    """Put experts into the form of other models'. What is not of these shapes stays, and whoever takes it says so."""
    for name in tensors.of(*BYTES):
        found = EXPERTS.fullmatch(name)
        if found is None or f"{found[1]}router.weight" not in tensors.weights:
            continue
        if len((codes := tensors.weights[name]).shape) != 3:
            continue
        tensors.weights[name] = turned(codes)
        for theirs, ours in MODELOPT.items():
            if name + theirs in tensors.weights and name + ours not in tensors.weights:
                tensors.weights[name + ours] = tensors.weights.pop(name + theirs)
        scale = tensors.weights.get(f"{name}_scale")
        if scale is None or len(scale.shape) != 3:
            continue
        experts, _, outputs = codes.shape
        if scale.shape == (experts, 1, outputs):
            flat = scale.rows().reshape(-1)
            scale = Weight.from_bytes(scale.name, scale.encoding, (experts, outputs, 1), flat)
        elif scale.encoding.values == 1 and scale.shape[1] > 1 and scale.shape[2] == outputs:
            scale = turned(scale)
        tensors.weights[f"{name}_scale"] = scale


def turned(weight: Weight) -> Weight:
    """The matrices [E, A, B] as [E, B, A]."""
    return columns_of(weight, weight.name, range(weight.shape[2]))
