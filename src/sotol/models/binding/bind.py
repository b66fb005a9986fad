"""From the weights of a file to those of an architecture: each by its one name, in its shape, as programs read it.

The one name is GGUF's, without ".weight". A table says what Hugging Face's checkpoints call each weight, what shape it
has, and what changes on the way from there. Files may write three things in another way, as llama.cpp takes them:
several matrices as one (`JOINED`), shapes with ones before them, and experts (`expert_weights.py`). Every weight of a
file is bound, or an error names it.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from sotol.errors import ModelError
from sotol.formats.files import copied
from sotol.formats.weights import Checkpoint, Weight
from sotol.models.binding import mlx_names
from sotol.models.binding.changes import Change, plus_one
from sotol.models.binding.drafts import without_drafts
from sotol.models.binding.expert_weights import whole_experts
from sotol.models.binding.sizes import Sizes

__all__ = ["Config", "Name", "Table", "bind", "is_gguf", "letters_of", "renamed"]


class Name(NamedTuple):
    """A weight by its other name, with {} for the layer; "" where only GGUF has such a weight."""

    hf: str
    shape: str  # in letters of `letters_of`: "H*d D"
    change: Change | None = None  # from Hugging Face's numbers to ours


Table = Mapping[str, Name]  # by GGUF's name with {} for the layer

# RoPE's frequencies as buffers of the trained model: the metadata says them, so converters leave these out, most times.
DERIVED = re.compile(r"rope\.freqs|blk\.\d+\.attn_rot_embd|.*rotary_emb\.inv_freq")
LAYER = re.compile(r"\.(\d+)\.")
LETTER = re.compile(r"[A-Za-z]")
OLD_PREFIX = ("backbone.", "model.")  # what some checkpoints' files say, and what transformers makes of it
# Weights that have the rows of several, one after another. One that goes by the name of a part has them if its rows are
# so many and the other parts are not there. Where Hugging Face's checkpoints join some, the table gives that part the
# whole's name, and the others none.
JOINED = (
    ("attn_qkv", ("attn_q", "attn_k", "attn_v")),
    ("attn_q", ("attn_q", "attn_k", "attn_v")),
    ("ffn_up", ("ffn_gate", "ffn_up")),
    ("ffn_up_shexp", ("ffn_gate_shexp", "ffn_up_shexp")),
)
TIED = "output"  # the head, which a checkpoint of Hugging Face's may have and not use


class Config(Protocol):
    """What every architecture's config has besides its own fields."""

    @property
    def sizes(self) -> Sizes: ...


@runtime_checkable
class Lettered(Protocol):
    """A part of a config that says how large something is: `Sizes`, `Rope`, `Experts`, …; or a config that does."""

    def letters(self, layer: int | None) -> Mapping[str, int]:
        """The sizes of letters in the table's shapes: of a layer's weights, or (None) of the others."""
        ...


def letters_of(config: Config) -> Callable[[int | None], Mapping[str, int]]:
    """The sizes of all letters in the shapes of a layer's weights, or (None) of the others.

    They are those of the config's parts, unless it says itself what they are, as where layers differ. A layer has no
    weight in whose shape there is a letter that it lacks.
    """
    assert isinstance(config, tuple)  # configs are NamedTuples
    parts = [config] if isinstance(config, Lettered) else [part for part in config if isinstance(part, Lettered)]
    return lambda layer: {letter: size for part in parts for letter, size in part.letters(layer).items()}


def is_gguf(checkpoint: Checkpoint) -> bool:
    """Whether names and metadata are GGUF's, and not Hugging Face's."""
    return "general.architecture" in checkpoint.metadata


def renamed(checkpoint: Checkpoint, table: Table) -> Checkpoint:
    """The checkpoint with weights by their one name, unchanged. ModelError for a name of Hugging Face's kind that the
    table does not have, and for two weights of one name.
    """
    plain = {name.removesuffix(".weight"): weight for name, weight in checkpoint.weights.items()}
    if len(plain) < len(checkpoint.weights):
        twice = next(name for name in checkpoint.weights if f"{name}.weight" in checkpoint.weights)
        raise ModelError(f"{checkpoint.path}: weight {twice!r:.80} is there twice, with and without .weight")
    weights = dict[str, Weight]()
    for name, weight in without_drafts(checkpoint, plain).items():
        if not DERIVED.fullmatch(name):
            ours = name.replace(*OLD_PREFIX, 1) if name.startswith(OLD_PREFIX[0]) else name
            if ours in weights or (ours != name and ours in plain):
                raise ModelError(f"{checkpoint.path}: weight {ours!r:.80} is there twice, once as {name!r:.80}")
            weights[ours] = weight
    weights = whole_experts(checkpoint.path, weights)
    if not is_gguf(checkpoint):
        keys = {hf: key for hf, key in mlx_names.NAMES.items() if key in table}
        keys |= {name.hf: key for key, name in table.items() if name.hf}
        if checkpoint.metadata.get("tie_word_embeddings") and TIED in table:
            weights.pop(table[TIED].hf, None)  # the embedding once more
        if extra := sorted(name for name in weights if LAYER.sub(".{}.", name, count=1) not in keys):
            raise _extra(checkpoint.path, extra)
        weights = {_translated(name, keys): weight for name, weight in weights.items()}
    return checkpoint._replace(weights=weights)


def _translated(name: str, ours: Mapping[str, str]) -> str:
    """A name of Hugging Face's as ours."""
    layer = LAYER.search(name)
    return ours[LAYER.sub(".{}.", name, count=1)].format(layer[1] if layer else "")


def _extra(path: Path, names: Sequence[str]) -> ModelError:
    return ModelError(f"{path}: weight {names[0]!r:.80} (of {len(names)}) is not part of this architecture")


def bind(checkpoint: Checkpoint, table: Table, config: Config) -> Mapping[str, Weight]:
    """The weights by their one name. ModelError names one that the table lacks, of another shape or unknown encoding.

    Which of the table's may be missing, the forward knows: `Model` refuses what it asks for in vain.
    """
    path, weights = checkpoint.path, dict(renamed(checkpoint, table).weights)
    layers, shapes = range(config.sizes.layers), dict[str, tuple[int, ...]]()
    sizes_in = letters_of(config)
    letters = {layer: sizes_in(layer) for layer in (None, *layers)}
    for key, name in table.items():
        for layer in layers if "{}" in key else (None,):
            if letters[layer].keys() >= set(LETTER.findall(name.shape)):
                shapes[key.format(layer)] = _shape(name.shape, letters[layer])
    for layer, suffix, (whole, of) in product(layers, ("", ".bias"), JOINED):
        _split(path, weights, f"blk.{layer}.{whole}{suffix}", [f"blk.{layer}.{part}{suffix}" for part in of], shapes)
    if extra := sorted(weights.keys() - shapes.keys()):
        raise _extra(path, extra)
    changing = not is_gguf(checkpoint)
    unchanged = {plus_one} if changing and mlx_names.norms_are_sums(weights) else set[Change]()
    for full, shape in shapes.items():
        if full not in weights:
            continue
        weight = weights[full] = _shaped(path, full, weights[full], shape)
        if weight.encoding.decode is None:
            raise ModelError(f"{path}: weight {full} is {weight.encoding.name}, which sotol can't run yet")
        change = table[LAYER.sub(".{}.", full, count=1)].change
        if changing and change is not None and change not in unchanged:
            layer_of = LAYER.search(full)
            weights[full] = change(weight, letters[int(layer_of[1]) if layer_of else None])
    return weights


def _shape(shape: str, letters: Mapping[str, int]) -> tuple[int, ...]:
    """ "H*d D" as numbers."""
    return tuple(math.prod(letters[letter] for letter in side.split("*")) for side in shape.split())


def _shaped(path: Path, name: str, weight: Weight, shape: tuple[int, ...]) -> Weight:
    """The weight in this shape. Its own may have ones besides; and a vector, or floats, may lie in any such shape."""
    ones_apart = [n for n in weight.shape if n > 1] == [n for n in shape if n > 1]
    if weight.shape == shape:
        return weight
    if ones_apart and weight.shape[-1] == shape[-1]:
        return replace(weight, shape=shape)
    if (len(shape) == 1 and math.prod(weight.shape) == shape[0]) or (ones_apart and weight.encoding.values == 1):
        return Weight.from_bytes(weight.name, weight.encoding, shape, copied(weight.rows()).reshape(-1))
    raise ModelError(f"{path}: weight {name} has shape {list(weight.shape)}, not {list(shape)}")


def _split(
    path: Path, weights: dict[str, Weight], name: str, parts: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Put the rows of a weight, if the file has it, in the place of weights that the file has not."""
    others = [part for part in parts if part != name]
    if name not in weights or any(part in weights for part in others) or not all(part in shapes for part in parts):
        return  # what is left of it is extra
    counts = [shapes[part][0] for part in parts]
    shape = (sum(counts), *shapes[parts[0]][1:])
    if name in parts and weights[name].shape[-len(shape) :] != shape:
        return  # it is that part alone
    weight = _shaped(path, name, weights.pop(name), shape)
    end = 0
    for part, count in zip(parts, counts, strict=True):
        begin, end = end, end + count
        try:
            weights[part] = weight.part(begin, end)
        except ValueError:
            message = f"weight {name} is {weight.encoding.name}: it can't be cut into its parts"
            raise ModelError(f"{path}: {message}") from None
