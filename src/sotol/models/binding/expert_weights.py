"""The weights of experts: from the forms that files have them in to one weight for each projection of a layer.

That form is GGUF's: ffn_gate_exps [E, F, D], ffn_up_exps and ffn_down_exps. Files also have

    a weight for each expert       Hugging Face's checkpoints: …experts.7.gate_proj (Mixtral's: w1, w3 and w2);
                                   older GGUF files: blk.0.ffn_gate.7
    gate and up in one [E, 2F, D]  transformers in memory: …experts.gate_up_proj; GGUF: ffn_gate_up_exps
    … transposed                   Llama 4, beside a router: …feed_forward.experts.gate_up_proj [E, D, 2F];
                                   down_proj [E, F, D]
    … with biases, too             GPT-OSS: the same, of …mlp.experts, gate and up in turns
    … as a map of each expert      Unsloth's GPT-OSS: …experts.gate_up_projs.7 [2F, D], in turns; …experts.down_projs.7

Rows stay where they are, in their encoding, and are put together as they are asked for.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sotol.errors import ModelError
from sotol.formats.files import copied, copy_bytes
from sotol.formats.rearranged import rows_of
from sotol.formats.weights import Weight
from sotol.models.binding.sources import turned
from sotol.quant import UInt8Array

__all__ = ["whole_experts"]

# A weight of one expert: what comes before the expert's number, the number, what comes after.
SINGLE = (
    re.compile(r"(?P<before>.+\.experts)\.(?P<number>\d{1,5})(?P<after>\..+)"),
    re.compile(r"(?P<before>.+\.experts\.(?:gate_up|down)_projs)\.(?P<number>\d{1,5})(?P<after>|\.bias)"),
    re.compile(r"(?P<before>blk\.\d+\.ffn_(?:gate|up|down))\.(?P<number>\d{1,5})(?P<after>)"),
)
JOINED = re.compile(r"(.+\.experts\.)gate_up_proj(\.bias|)|(blk\.\d+\.ffn_)gate_up_exps(\.bias|)")
TURNED = re.compile(r"(.+\.feed_forward\.)experts\.(gate_up_proj|down_proj)")
IN_TURNS = re.compile(r"(.+\.experts\.)(gate_up|down)_projs(\.bias|)")
TURNED_BIAS = re.compile(r"(.+\.experts\.)(gate_up_proj|down_proj)_bias")
MIXTRAL = {".w1": ".gate_proj", ".w2": ".down_proj", ".w3": ".up_proj"}
# Words of checkpoints' files, Granite's, Mixtral's and MLX's, for what the tables of names have.
OLD_WORDS = {
    ".block_sparse_moe.input_linear": ".mlp.experts.gate_up_proj",
    ".block_sparse_moe.output_linear": ".mlp.experts.down_proj",
    ".block_sparse_moe.router.layer": ".mlp.router",
    ".block_sparse_moe.": ".mlp.",
    ".mlp.router.linear": ".mlp.router",
    ".switch_mlp.fc1": ".experts.up_proj",
    ".switch_mlp.fc2": ".experts.down_proj",
    ".switch_mlp.": ".experts.",
    ".experts.switch_glu.": ".experts.",
}


def whole_experts(path: Path, weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """The weights with those of experts in the form of GGUF; by the names of the file's kind, as they came.

    path: of the file, for errors. ModelError names a layer of which an expert is missing, or whose experts differ in
    shape or encoding.
    """
    whole = _stacked(path, {_in_our_words(name): weight for name, weight in weights.items()})
    for name in list(whole):
        if (found := TURNED.fullmatch(name)) and f"{found[1]}router" in whole:  # LFM2 has a gate there
            _turn(whole, found[1] + "experts.", found[2])
        elif found := TURNED_BIAS.fullmatch(name):
            _turn_with_bias(whole, found[1], found[2])
        elif found := IN_TURNS.fullmatch(name):
            _take_turns(whole, found[1], found[2], found[3])
    for name in list(whole):
        if (found := JOINED.fullmatch(name)) and len(whole[name].shape) > 1:
            before, after = found[1] or found[3], found[2] or found[4] or ""
            gate, up = (f"{before}{part}{'_proj' if found[1] else '_exps'}{after}" for part in ("gate", "up"))
            if gate not in whole and up not in whole and whole[name].shape[1] % 2 == 0:
                joined = whole.pop(name)
                whole[gate], whole[up] = _halves(path, joined)
    return whole


def _in_our_words(name: str) -> str:
    for old, new in OLD_WORDS.items():
        name = name.replace(old, new)
    return name


# ---- a weight for each expert


def _stacked(path: Path, weights: Mapping[str, Weight]) -> dict[str, Weight]:
    whole, single = dict[str, Weight](), dict[str, dict[int, Weight]]()
    for name, weight in weights.items():
        found = next((match for pattern in SINGLE if (match := pattern.fullmatch(name))), None)
        if found is None:
            whole[name] = weight
        else:
            after = MIXTRAL.get(found["after"], found["after"]) or ("_exps" if name.startswith("blk.") else "")
            single.setdefault(found["before"] + after, {})[int(found["number"])] = weight
    for name, experts in single.items():
        if name in whole:
            raise ModelError(f"{path}: weights of experts are there twice: {name!r:.80}, and one for each expert")
        if lacking := set(range(len(experts))) - experts.keys():
            raise ModelError(f"{path}: the weight of expert {min(lacking)} is missing of {name!r:.80}")
        whole[name] = _joined(path, name, [experts[i] for i in range(len(experts))])
    return whole


def _joined(path: Path, name: str, experts: Sequence[Weight]) -> Weight:
    """Weights of one shape and encoding as one, with a dimension more. Each keeps the order of its inputs."""
    first = experts[0]
    for number, other in enumerate(experts):
        if (other.shape, other.encoding) != (first.shape, first.encoding):
            raise ModelError(
                f"{path}: expert {number} of {name!r:.80} differs from expert 0 in its shape or its encoding"
            )
    whole = Weight(name, first.encoding, (len(experts), *first.shape), _Stack(tuple(experts)))
    if all(x.order is None for x in experts):
        return whole
    usual = np.arange(first.shape[-1], dtype=np.int32)
    return replace(whole, order=np.stack([usual if x.order is None else x.order for x in experts]))


def _halves(path: Path, joined: Weight) -> tuple[Weight, Weight]:
    """The first and the second half of each expert's rows, or of its numbers."""
    half = joined.shape[1] // 2
    each = [joined.expert(i) for i in range(joined.shape[0])]
    try:
        gate, up = ([x.part(begin, begin + half) for x in each] for begin in (0, half))
        return _joined(path, f"{joined.name}, gate", gate), _joined(path, f"{joined.name}, up", up)
    except ValueError:
        raise ModelError(
            f"{path}: weight {joined.name} is {joined.encoding.name}: it can't be cut into its parts"
        ) from None


class _Stack(NamedTuple):
    """Rows of weights that have equally many, one after another."""

    weights: tuple[Weight, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.weights) * self.weights[0].row_count, self.weights[0].row_bytes

    @property
    def arrays(self) -> Sequence[UInt8Array]:
        every = (array for weight in self.weights for array in weight.source.arrays)
        return list({id(array): array for array in every}.values())

    def rows(self, first: int, end: int) -> UInt8Array:
        """Of one weight, a view where that has one; else copies."""
        each = self.weights[0].row_count
        number = first // each
        if first < end <= (number + 1) * each:
            return self.weights[number].rows(first - number * each, end - number * each)
        out, at = np.empty((end - first, self.shape[1]), np.uint8), first
        while at < end:
            number = at // each
            stop = min(end, (number + 1) * each)
            rows = self.weights[number].rows(at - number * each, stop - number * each)
            copy_bytes(rows, out[at - first : stop - first].reshape(-1))
            at = stop
        return out


# ---- transposed


def _turn(whole: dict[str, Weight], before: str, part: str) -> None:
    """Give a projection other experts' form: gate and up, if it has both, one after the other. Floats only."""
    matrix = whole[before + part]
    if len(matrix.shape) != 3 or matrix.encoding.values != 1 or (part == "gate_up_proj" and matrix.shape[2] % 2):
        return  # whoever binds the weights says what is wrong
    width, half = matrix.shape[2], matrix.shape[2] // 2
    down, both = {"down_proj": range(width)}, {"gate_proj": range(half), "up_proj": range(half, width)}
    del whole[before + part]
    for name, columns in (down if part == "down_proj" else both).items():
        whole[before + name] = turned(matrix, f"{matrix.name}, {name}", columns)


def _turn_with_bias(whole: dict[str, Weight], before: str, part: str) -> None:
    """Give a projection and its bias, which say gate and up in turns, other experts' form. Floats only."""
    matrix, bias = whole.get(before + part), f"{before}{part}_bias"
    if matrix is None or len(matrix.shape) != 3 or matrix.encoding.values != 1 or len(whole[bias].shape) != 2:
        return  # whoever binds the weights says what is wrong
    parts = {"down_proj": (0, 1)} if part == "down_proj" else {"gate_proj": (0, 2), "up_proj": (1, 2)}
    del whole[before + part]
    added = whole.pop(bias)
    for name, (first, step) in parts.items():
        whole[before + name] = turned(matrix, f"{matrix.name}, {name}", range(first, matrix.shape[2], step))
        whole[f"{before}{name}.bias"] = _some_numbers(added, name, first, step)


def _take_turns(whole: dict[str, Weight], before: str, part: str, after: str) -> None:
    """Give matrices [E, 2F, D] whose rows are gate and up in turns, or biases [E, 2F], other experts' form."""
    given = whole[f"{before}{part}_projs{after}"]
    if len(given.shape) != (2 if after else 3) or (after and given.encoding.values != 1):
        return  # whoever binds the weights says what is wrong
    del whole[f"{before}{part}_projs{after}"]
    for name, (first, step) in ({"down": (0, 1)} if part == "down" else {"gate": (0, 2), "up": (1, 2)}).items():
        cut = _some_numbers if after else rows_of
        own = given if step == 1 else cut(given, f"{given.name}, {name}", first, step)
        whole[f"{before}{name}_proj{after}"] = own


def _some_numbers(vectors: Weight, name: str, first: int, step: int) -> Weight:
    """Numbers first, first + step, … of each of several vectors [E, N]."""
    own = np.ascontiguousarray(copied(vectors.rows()).view(f"u{vectors.encoding.size}")[:, first::step])
    return Weight.from_bytes(f"{vectors.name}, {name}", vectors.encoding, own.shape, own.view(np.uint8).reshape(-1))
