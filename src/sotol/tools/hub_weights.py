"""The weights of a GGUF file as tensors of Hugging Face's checkpoints: the way back through the tables `WEIGHTS`.

Changes are undone, rows that those checkpoints have in one tensor come together, and experts get the form of their
models' releases (`hub_experts.py`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from sotol.arrays import UInt8Array
from sotol.errors import ModelError
from sotol.formats.safetensors_writer import NewTensor
from sotol.formats.weights import Checkpoint, Weight
from sotol.models.binding.bind import Config, Table, bind, letters_of
from sotol.models.binding.changes import undone
from sotol.tools.encoding import planned
from sotol.tools.encoding_threads import EncodingThreads
from sotol.tools.gguf_names import full_name
from sotol.tools.hub_experts import expert_tensors, in_words_of, tensors_of_heads

__all__ = ["hub_tensors"]

LAYER = re.compile(r"\.(\d+)\.")
# The parts of a tensor of Hugging Face's, in order, where the table gives one of them its name and the others none.
TOGETHER = {
    "attn_q": ("attn_q", "attn_k", "attn_v"), "ffn_up": ("ffn_gate", "ffn_up"),
    "ffn_up_shexp": ("ffn_gate_shexp", "ffn_up_shexp"),
}  # fmt: skip
# Tensors that are parameters by themselves, not of a module with a weight.
BARE = re.compile(
    r".*\.(bias|sinks|A_log|D|dt_bias|e_score_correction_bias|expert_bias|router\.scale|per_expert_scale|layer_scalar)"
)
# What GGUF has as vectors: linear layers of one output, and ERNIE's biases of choices.
ROW = re.compile(r".*\.(shared_expert_gate\.weight|moe_statics\.e_score_correction_bias)")
CONVOLUTION = re.compile(r".*\.(conv1d|conv\.conv)\.weight")  # [C, 1, t]
# Of Granites without experts, what the only network is called in GGUF -> in Hugging Face's checkpoints.
ALONE = {f".ffn_{part}": f".ffn_{part}_shexp" for part in ("gate", "up", "down")}


def hub_tensors(
    checkpoint: Checkpoint, table: Table, config: Config, model_type: str, target: str, encoders: EncodingThreads
) -> list[NewTensor]:
    """The tensors in the order of the file. target: the float type of matrices; encoders: encode them.

    ModelError for a weight that has no name there, or whose change can't be undone.
    """
    bound = bind(checkpoint, table, config)
    if "granite" in model_type and getattr(config, "experts", True) is None:
        bound = {_in_the_place_of_shared(name): weight for name, weight in bound.items()}
    found, done = list[NewTensor](), set[str]()
    for name in bound:
        key, layer = LAYER.sub(".{}.", name, count=1), LAYER.search(name)
        hf = table[key].hf
        if name in done or not hf:
            continue
        names = _parts(table, key, layer[1] if layer else "")
        done.update(names)
        weights = [_unchanged(bound, table, part, config) for part in names]
        hub_name = hf.format(layer[1] if layer else "")
        if "_exps" in key and not name.endswith(".scale"):
            found += expert_tensors(checkpoint, bound, name, hub_name, model_type, target, encoders)
        else:
            found.append(_tensor(_full(hub_name), name, weights, target, encoders))
    nameless = {
        name: weight
        for name, weight in bound.items()
        if name not in done and not name.startswith("rope_")  # config.json has these
    }
    apart, made = tensors_of_heads(nameless, config, target, encoders)
    if left := nameless.keys() - made:
        raise ModelError(f"{checkpoint.path}: weight {min(left)} has no name in Hugging Face's checkpoints")
    return [tensor._replace(name=in_words_of(model_type, tensor.name)) for tensor in (*found, *apart)]


def _in_the_place_of_shared(name: str) -> str:
    before, dot, last = name.rpartition(".")
    return before + ALONE.get(dot + last, dot + last)


def _full(name: str) -> str:
    return name if BARE.fullmatch(name) else f"{name}.weight"


def _parts(table: Table, key: str, layer: str) -> list[str]:
    """The weights whose rows a tensor has, by our names."""
    for part, parts in TOGETHER.items():
        first = f"blk.{{}}.{part}"
        others = [f"blk.{{}}.{other}" for other in parts if other != part]
        if key == first and all(other in table and not table[other].hf for other in others):
            return [f"blk.{layer}.{one}" for one in parts]
    return [key.format(layer)]


def _unchanged(bound: Mapping[str, Weight], table: Table, name: str, config: Config) -> Weight:
    """A weight with the numbers that Hugging Face's checkpoints have."""
    if name not in bound:
        raise ModelError(f"weight {name} is missing, whose rows belong to a tensor of Hugging Face's checkpoints")
    change = table[LAYER.sub(".{}.", name, count=1)].change
    if change is None:
        return bound[name]
    layer, weight = LAYER.search(name), bound[name]
    return undone(change)(weight, letters_of(config)(int(layer[1]) if layer else None))


def _tensor(name: str, ours: str, weights: Sequence[Weight], target: str, encoders: EncodingThreads) -> NewTensor:
    """The rows of weights, one after the other, as a tensor."""
    plans = [planned(full_name(ours), weight, target) for weight in weights]
    first = weights[0]
    if ROW.fullmatch(name):
        first = replace(first, shape=(1, *first.shape))
    elif CONVOLUTION.fullmatch(name):
        first = replace(first, shape=(first.shape[0], 1, first.shape[1]))
    shape = first.shape if len(weights) == 1 else (sum(w.shape[0] for w in weights), *first.shape[1:])

    def pieces() -> Iterator[UInt8Array]:
        return chain.from_iterable(encoders.rows(plan) for plan in plans)

    return NewTensor(name, plans[0].encoding.name, shape, pieces)
