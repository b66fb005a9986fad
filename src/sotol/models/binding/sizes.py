"""Counts and widths of a model, of each layer and of all, and the letters by which tables of weights call them.

D width (O and U the same, of what attention and the feed-forward network give), H query heads, K key-value heads, d
head width, F feed-forward width, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models.binding.drafts import GGUF_DRAFTS
from sotol.models.binding.metadata import Metadata

__all__ = ["LayerSizes", "Sizes", "read_sizes"]

WIDEST_HEAD = 4096  # far beyond any model's


class LayerSizes(NamedTuple):
    """Counts and widths of one layer."""

    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int


class Sizes(NamedTuple):
    """Counts and widths of a decoder; a tuple has a number for each layer."""

    layers: int
    width: int
    vocabulary: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    head_width: int
    ffn_width: tuple[int, ...]

    def of(self, layer: int) -> LayerSizes:
        """The sizes of a layer."""
        return LayerSizes(self.heads[layer], self.kv_heads[layer], self.head_width, self.ffn_width[layer])

    def letters(self, layer: int | None, *, attends: bool = True, network: bool = True) -> Mapping[str, int]:
        """By the letters that tables of weights use: those of a layer too, if one is given.

        attends, network: whether that layer has attention, and a feed-forward network: else it has no letters of these.
        """
        letters = {"D": self.width, "V": self.vocabulary}
        if attends:
            letters |= {"d": self.head_width, "O": self.width}
        if layer is None:
            return letters
        s = self.of(layer)
        if attends:
            letters |= {"H": s.heads, "K": s.kv_heads}
        return {**letters, "F": s.ffn_width, "U": self.width} if network else letters


def read_sizes(
    metadata: Metadata,
    checkpoint: Checkpoint,
    *,
    head_width: int | None = None,
    ffn_width: int | None = None,
    least: int = 1,
) -> Sizes:
    """The sizes, from the metadata; the vocabulary from the embedding matrix. ModelError where they disagree.

    The checkpoint's weights have the table's names. head_width: of architectures that have other keys for it.
    ffn_width: where the metadata has none; None: it must have one. least: 0 where layers may be without attention,
    which then have no key-value heads, or without a feed-forward network. Layers that draft tokens do not count: `bind`
    leaves them out.
    """
    path, embedding = checkpoint.path, checkpoint.weights.get("token_embd")
    if embedding is None or len(embedding.shape) < 2:
        raise ModelError(f"{path}: weight token_embd.weight is missing or no matrix")
    layers, drafts = metadata.integer("block_count"), metadata.integer(GGUF_DRAFTS, 0, least=0)
    if drafts >= layers:
        raise ModelError(f"{path}: block_count is {layers}: more than the {drafts} of {GGUF_DRAFTS} are needed")
    layers -= drafts
    if layers > len(checkpoint.weights):
        raise ModelError(f"{path}: {len(checkpoint.weights)} weights can't be block_count = {layers} layers")
    width, heads = metadata.integer("embedding_length"), metadata.integers("attention.head_count", layers)
    kv_heads = heads
    if metadata.has("attention.head_count_kv"):
        kv_heads = metadata.integers("attention.head_count_kv", layers, least=least)
    for of_queries, of_keys in zip(heads, kv_heads, strict=True):
        if of_keys and of_queries % of_keys:
            raise ModelError(f"{path}: {of_queries} query heads can't share {of_keys} key-value heads evenly")
    if head_width is None:
        head_width = _head_width(metadata, path, width, heads)
    ffn_widths = metadata.integers("feed_forward_length", layers, ffn_width, least=least)
    return Sizes(layers, width, embedding.shape[-2], heads, kv_heads, head_width, ffn_widths)


def _head_width(metadata: Metadata, path: Path, width: int, heads: Sequence[int]) -> int:
    if not metadata.has("attention.key_length") and (width % heads[0] or len(set(heads)) > 1):
        raise ModelError(f"{path}: width {width} is no multiple of {' and '.join(map(str, sorted(set(heads))))} heads")
    head_width = metadata.integer("attention.key_length", width // heads[0])
    if head_width > WIDEST_HEAD:
        raise ModelError(f"{path}: heads of width {head_width} are wider than the {WIDEST_HEAD} of sotol")
    if metadata.integer("attention.value_length", head_width) != head_width:
        raise ModelError(f"{path}: keys and values of different widths are not supported")
    return head_width
