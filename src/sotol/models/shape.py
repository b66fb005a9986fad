"""The sizes that every decoder here has. D width, H query heads, K key-value heads, d head width, F feed-forward width."""

from collections.abc import Mapping
from dataclasses import dataclass

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models.metadata import Fields

__all__ = ["Sizes", "read_sizes"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts and widths of a decoder."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    vocabulary: int

    @property
    def letters(self) -> Mapping[str, int]:
        """By the letters that tables of weights use."""
        return {
            "D": self.width,
            "H": self.heads,
            "K": self.kv_heads,
            "d": self.head_width,
            "F": self.ffn_width,
            "V": self.vocabulary,
        }


def read_sizes(fields: Fields, checkpoint: Checkpoint) -> Sizes:
    """The sizes, from the metadata; the vocabulary from the embedding matrix. ModelError where they disagree."""
    embedding = checkpoint.weights.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelError(f"{checkpoint.path}: weight token_embd.weight is missing or no matrix")
    width, heads = fields.integer("embedding_length"), fields.integer("attention.head_count")
    kv_heads = fields.integer("attention.head_count_kv", heads)
    if heads % kv_heads:
        raise ModelError(f"{checkpoint.path}: {heads} query heads can't share {kv_heads} key-value heads evenly")
    if not fields.has("attention.key_length") and width % heads:
        raise ModelError(f"{checkpoint.path}: width {width} is no multiple of {heads} heads")
    head_width = fields.integer("attention.key_length", width // heads)
    if fields.integer("attention.value_length", head_width) != head_width:
        raise ModelError(f"{checkpoint.path}: keys and values of different widths are not supported")
    return Sizes(
        fields.integer("block_count"),
        width,
        heads,
        kv_heads,
        head_width,
        fields.integer("feed_forward_length"),
        embedding.shape[0],
    )
