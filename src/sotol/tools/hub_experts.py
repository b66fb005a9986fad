"""Tensors of Hugging Face's checkpoints that GGUF has in another form: those of experts, and some of attention's heads.

Experts have the form of their models' releases: a tensor for each expert; or one for all, with gate and up together:
Granite's and Gemma 4's one after the other, Llama 4's so and transposed, GPT-OSS's transposed and in turns.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from sotol.arrays import Float32Array, UInt8Array
from sotol.errors import ModelError, SotolError
from sotol.formats.files import in_memory
from sotol.formats.safetensors_writer import NewTensor
from sotol.formats.weights import Checkpoint, Weight
from sotol.quant import ENCODINGS
from sotol.tools.encoding import planned
from sotol.tools.encoding_threads import EncodingThreads
from sotol.tools.gguf_names import full_name

__all__ = ["expert_tensors", "in_words_of", "tensors_of_heads"]

# What checkpoints of a model_type call experts' projections, by the words of the tables.
MIXTRAL = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
PROJECTIONS = {"mixtral": MIXTRAL, "minimax_m2": MIXTRAL, "lfm2_moe": MIXTRAL}
GRANITE = {
    ".mlp.router.": ".block_sparse_moe.router.layer.",
    ".mlp.experts.gate_up_proj": ".block_sparse_moe.input_linear.weight",
    ".mlp.experts.down_proj": ".block_sparse_moe.output_linear.weight",
}
WORDS = {
    "mixtral": {".mlp.": ".block_sparse_moe."},
    "minimax_m2": {".mlp.": ".block_sparse_moe."},
    **dict.fromkeys(("granitemoe", "granitemoehybrid", "granitemoeshared"), GRANITE),
}
# Whose experts are in one tensor, and whether that is transposed.
WHOLE = {
    "gemma4_text": False, "granitemoe": False, "granitemoehybrid": False, "granitemoeshared": False,
    "llama4_text": True,
}  # fmt: skip
OF_HEADS = re.compile(r"blk\.(\d+)\.(attn_k_b|attn_qkv)")


def in_words_of(model_type: str, name: str) -> str:
    """A tensor's name as files of this model_type have it."""
    for ours, theirs in WORDS.get(model_type, {}).items():
        name = name.replace(ours, theirs)
    return name


def expert_tensors(
    checkpoint: Checkpoint, bound: Mapping[str, Weight], name: str, hub_name: str, model_type: str, target: str,
    encoders: EncodingThreads,
) -> Iterator[NewTensor]:  # fmt: skip
    """The tensors that have the numbers of one of experts' weights; none, where it goes with another."""
    if model_type == "gpt_oss":
        return _of_gpt_oss(checkpoint, bound, name, hub_name, target, encoders)
    if model_type in WHOLE:
        return _whole(bound, name, hub_name, target, encoders, turned=WHOLE[model_type])
    return _single_experts(hub_name, name, bound[name], model_type, target, encoders)


def _single_experts(
    name: str, ours: str, weight: Weight, model_type: str, target: str, encoders: EncodingThreads
) -> Iterator[NewTensor]:
    """A tensor for each expert."""
    before, _, projection = name.rpartition(".")
    projection = PROJECTIONS.get(model_type, {}).get(projection, projection)
    for i in range(weight.shape[0]):
        plan = planned(full_name(ours), weight.expert(i), target)
        pieces = partial(encoders.rows, plan)
        yield NewTensor(f"{before}.{i}.{projection}.weight", plan.encoding.name, plan.weight.shape, pieces)


# ---- all experts in one tensor


def _whole(
    bound: Mapping[str, Weight], name: str, hub_name: str, target: str, encoders: EncodingThreads, *, turned: bool
) -> Iterator[NewTensor]:
    """Gate and up one after the other, [E, 2 f, D], or down, [E, D, f]; turned: [E, D, 2 f] and [E, f, D]."""
    if "ffn_up_exps" in name:
        return
    parts = [bound[name]]
    if "ffn_gate_exps" in name:
        parts.append(bound[name.replace("ffn_gate", "ffn_up")])
    count, columns = parts[0].shape[0], parts[0].shape[2]
    rows = sum(part.shape[1] for part in parts)
    hub_name = hub_name.replace("gate_proj", "gate_up_proj")
    if turned:

        def numbers(i: int) -> Float32Array:
            return np.concatenate([_decoded(part.expert(i)) for part in parts]).T

        yield _joined(hub_name, (count, columns, rows), count, numbers, target, encoders)
        return

    def pieces() -> Iterator[UInt8Array]:
        for i, part in product(range(count), parts):
            yield from encoders.rows(planned(full_name(name), part.expert(i), target))

    yield NewTensor(hub_name, target, (count, rows, columns), pieces)


def _of_gpt_oss(
    checkpoint: Checkpoint,
    bound: Mapping[str, Weight],
    name: str,
    hub_name: str,
    target: str,
    encoders: EncodingThreads,
) -> Iterator[NewTensor]:
    """GPT-OSS's tensors of all experts: that of a gate and up, where this is the gate's name, or that of a down."""
    if not name.endswith(".bias") and f"{name}.bias" not in bound:
        raise ModelError(f"{checkpoint.path}: weight {name}.bias is missing, which checkpoints of GPT-OSS have")
    if "ffn_gate_exps" in name:
        yield _gate_and_up(bound, name, hub_name, target, encoders)
    elif "ffn_down_exps" in name:
        yield _down(bound, name, hub_name, target, encoders)


def _gate_and_up(
    bound: Mapping[str, Weight], name: str, hub_name: str, target: str, encoders: EncodingThreads
) -> NewTensor:
    """GPT-OSS's gate and up: [E, D, 2 f], or their biases [E, 2 f]; columns of both in turns."""
    gate, up = bound[name], bound[name.replace("ffn_gate", "ffn_up")]

    def both(i: int) -> Float32Array:
        pair = [_decoded(weight.expert(i)) for weight in (gate, up)]  # [f, D], or [f]
        return np.stack([numbers.T for numbers in pair], axis=-1).reshape(*pair[0].shape[1:], -1)

    shape = (gate.shape[0], *gate.shape[2:], 2 * gate.shape[1])
    whole = hub_name.replace("gate_proj.bias", "gate_up_proj_bias").replace("gate_proj", "gate_up_proj")
    return _joined(whole, shape, shape[0], both, "F32" if name.endswith(".bias") else target, encoders)


def _down(bound: Mapping[str, Weight], name: str, hub_name: str, target: str, encoders: EncodingThreads) -> NewTensor:
    """GPT-OSS's down-projection: [E, f, D], or its bias [E, D]."""
    weight = bound[name]
    shape = (weight.shape[0], *weight.shape[:0:-1])
    whole = hub_name.replace("down_proj.bias", "down_proj_bias")
    numbers = partial(_turned, weight)
    return _joined(whole, shape, shape[0], numbers, "F32" if name.endswith(".bias") else target, encoders)


def _turned(weight: Weight, i: int) -> Float32Array:
    return _decoded(weight.expert(i)).T


# ---- head by head


def tensors_of_heads(
    nameless: Mapping[str, Weight], config: Any, target: str, encoders: EncodingThreads
) -> tuple[list[NewTensor], set[str]]:
    """The tensors whose rows lie head by head where GGUF has weights of all heads; and the names of these weights.

    nameless: weights that have no name of their own in Hugging Face's checkpoints.
    """
    found, done = list[NewTensor](), set[str]()
    for name in nameless:
        if (match := OF_HEADS.fullmatch(name)) is None:
            continue
        latent = match[2] == "attn_k_b"
        other = name.replace("_k_b", "_v_b") if latent else name.replace("_qkv", "_gate")
        if other in nameless:
            make = _of_latent if latent else _of_delta_net
            found.append(make(f"model.layers.{match[1]}", nameless[name], nameless[other], config, target, encoders))
            done |= {name, other}
    return found, done


def _of_latent(
    layer: str, keys: Weight, values: Weight, config: Any, target: str, encoders: EncodingThreads
) -> NewTensor:
    """kv_b_proj [H (n + v), L] of K' [H, L, n] and V [H, v, L]."""
    c = config.latent

    def numbers(head: int) -> Float32Array:
        return np.concatenate([_decoded(keys.expert(head)).T, _decoded(values.expert(head))])

    shape = (c.heads * (c.plain + c.value), c.latent)
    return _joined(f"{layer}.self_attn.kv_b_proj.weight", shape, c.heads, numbers, target, encoders)


def _of_delta_net(
    layer: str, mixed: Weight, gate: Weight, config: Any, target: str, encoders: EncodingThreads
) -> NewTensor:
    """in_proj_qkvz of Qwen3-Next: of each head of keys its rows of queries, keys, values and gates."""
    c = config.trunk.delta
    key, value = c.key_width, c.value_heads // c.key_heads * c.value_width

    def numbers(head: int) -> Float32Array:
        begins = (head * key, (c.key_heads + head) * key, 2 * c.key_heads * key + head * value)
        parts = [mixed.part(begin, begin + n) for begin, n in zip(begins, (key, key, value), strict=True)]
        return np.concatenate([_decoded(part) for part in (*parts, gate.part(head * value, (head + 1) * value))])

    shape = (mixed.shape[0] + gate.shape[0], mixed.shape[1])
    return _joined(f"{layer}.linear_attn.in_proj_qkvz.weight", shape, c.key_heads, numbers, target, encoders)


def _decoded(weight: Weight) -> Float32Array:
    numbers: Float32Array = in_memory(weight).decode()
    return numbers


def _joined(
    name: str,
    shape: tuple[int, ...],
    count: int,
    numbers: Callable[[int], Float32Array],
    target: str,
    encoders: EncodingThreads,
) -> NewTensor:
    """A tensor of so many experts or heads, one after the other. numbers: of one."""
    encode = ENCODINGS[target].encode
    assert encode is not None

    def piece(i: int) -> UInt8Array:
        try:
            return encode(np.ascontiguousarray(numbers(i)))
        except ValueError as error:
            raise SotolError(f"tensor {name} can't be {target}: {error}") from None

    return NewTensor(name, target, shape, lambda: encoders.made(partial(piece, i) for i in range(count)))
