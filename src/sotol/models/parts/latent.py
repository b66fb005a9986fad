"""Multi-head latent attention: keys and values of all heads are projections of one short vector, which is all it keeps.

Paper: DeepSeek-AI 2024 (DeepSeek-V2, arXiv 2405.04434), section 2.1; facts that it leaves out are from Hugging Face's
modeling_deepseek_v3.py. Per token, the cache has the latent vector and a rotated part that all heads share:

    c = norm(h A')  [T, L],  k_r = rope(h R')  [T, r],  q = [q_n, q_r]: of each head n channels, and r that are rotated
    score of a head = q_n (c K')' + q_r k_r' = (q_n K) c' + q_r k_r'          K [n, L], V [v, L] of each head
    result          = sum of weights * (c V') = (sum of weights * c) V'

The right-hand forms (section 2.1.2) are used for any number of tokens, so prompts and single tokens have the same bits:
each head's query is taken to the latent space, where all heads attend to the same keys [c, k_r] and values c.
T tokens, D width, H heads, L width of the latent vector, Q that of queries, r 2 * rotated pairs.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sotol.formats.weights import Weight
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.changes import head_rows, turned_heads
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Layer, StepSymbols
from sotol.models.parts.decoder import project
from sotol.program import ops
from sotol.program.memory import Paged
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Latent", "attend", "read_latent"]

EPS = 1e-6  # of both norms of latent vectors, whatever the model's own is; llama.cpp takes the model's

# attn_kv_b has each head's rows of K, then of V; newer GGUF files have K, transposed, and V.
WEIGHTS: Table = {
    "blk.{}.attn_q": Name("model.layers.{}.self_attn.q_proj", "H*d D"),
    "blk.{}.attn_q_a": Name("model.layers.{}.self_attn.q_a_proj", "Q D"),
    "blk.{}.attn_q_a.bias": Name("model.layers.{}.self_attn.q_a_proj.bias", "Q"),
    "blk.{}.attn_q_a_norm": Name("model.layers.{}.self_attn.q_a_layernorm", "Q"),
    "blk.{}.attn_q_b": Name("model.layers.{}.self_attn.q_b_proj", "H*d Q"),
    "blk.{}.attn_kv_a_mqa": Name("model.layers.{}.self_attn.kv_a_proj_with_mqa", "l D"),
    "blk.{}.attn_kv_a_mqa.bias": Name("model.layers.{}.self_attn.kv_a_proj_with_mqa.bias", "l"),
    "blk.{}.attn_kv_a_norm": Name("model.layers.{}.self_attn.kv_a_layernorm", "L"),
    "blk.{}.attn_kv_b": Name("model.layers.{}.self_attn.kv_b_proj", "H*b L"),
    "blk.{}.attn_k_b": Name("", "H L n"),
    "blk.{}.attn_v_b": Name("", "H v L"),
    "blk.{}.attn_output": Name("model.layers.{}.self_attn.o_proj", "D H*v"),
    "blk.{}.attn_output.bias": Name("model.layers.{}.self_attn.o_proj.bias", "D"),
}

KEYS: Keys = {
    "attention.q_lora_rank": ("q_lora_rank",),
    "attention.kv_lora_rank": ("kv_lora_rank",),
    "attention.nope_length": ("qk_nope_head_dim",),  # GGUF has the sum of both parts
    "attention.key_length_mla": (),
    "attention.value_length_mla": ("v_head_dim",),
    "rope.dimension_count": ("qk_rope_head_dim",),
}


class Latent(NamedTuple):
    """Widths of latent attention."""

    heads: int
    queries: int  # Q; 0: queries are projections of the layer's input
    latent: int  # L
    plain: int  # n: channels of a head's key that do not rotate
    rotated: int
    value: int  # v

    def letters(self, _layer: int | None) -> Mapping[str, int]:
        """By the letters of the table of weights."""
        return {
            "H": self.heads, "Q": self.queries, "L": self.latent, "n": self.plain, "v": self.value,
            "d": self.plain + self.rotated, "l": self.latent + self.rotated, "b": self.plain + self.value,
        }  # fmt: skip


def read_latent(metadata: Metadata, heads: int) -> Latent:
    """The widths, by the metadata; ModelError names what is missing or can't be.

    GGUF files from before K and V were apart have the widths of keys and values where newer ones have the latent's.
    """
    rotated = metadata.integer("rope.dimension_count", least=2)
    if metadata.has("attention.nope_length"):
        plain = metadata.integer("attention.nope_length")
    else:
        key = "attention.key_length_mla" if metadata.has("attention.key_length_mla") else "attention.key_length"
        plain = metadata.integer(key, least=rotated + 1) - rotated
    value = "attention.value_length_mla" if metadata.has("attention.value_length_mla") else "attention.value_length"
    queries = metadata.integer("attention.q_lora_rank", 0, least=0)
    return Latent(heads, queries, metadata.integer("attention.kv_lora_rank"), plain, rotated, metadata.integer(value))


def attend(h: Tensor, w: Layer, c: Latent, step: StepSymbols, table: Constant, scale: float) -> Tensor:
    """Latent attention of a layer over its input's norm, h [T, D]; scale: of scores."""
    if c.queries:
        x, name = ops.rms_norm(project(h, w, "attn_q_a"), w("attn_q_a_norm"), eps=EPS), "attn_q_b"  # [T, Q]
    else:
        x, name = h, "attn_q"
    plain, rotated = (
        ops.linear(x, head_rows(w(name), c.heads, begin, begin + width)).reshape("T", c.heads, width)
        for begin, width in ((0, c.plain), (c.plain, c.rotated))
    )  # [T, H, n] and [T, H, r]
    keys, values = projections(w, c)
    rotated = ops.rope(rotated, step.positions, table, style="pairs")
    q = ops.join(ops.head_linear(plain, keys), rotated)  # [T, H, L + r]

    latent = part_of(h, w, "attn_kv_a_mqa", 0, c.latent)
    shared = part_of(h, w, "attn_kv_a_mqa", c.latent, c.latent + c.rotated)
    latent = ops.rms_norm(latent, w("attn_kv_a_norm"), eps=EPS)  # [T, L]
    shared = ops.rope(shared.reshape("T", 1, c.rotated), step.positions, table, style="pairs")
    cache = w.cache(Paged(1, c.latent + c.rotated, c.latent, latent=True))
    ops.remember_latent(ops.join(latent.reshape("T", 1, c.latent), shared), cache, step.step)

    out = ops.head_linear(ops.attention(q, cache, step.step, scale=scale), values)  # [T, H, v]
    return project(out.reshape("T", c.heads * c.value), w, "attn_output")


def projections(w: Layer, c: Latent) -> tuple[Weight, Weight]:
    """K' [H, L, n] and V [H, v, L].

    K of files that have attn_kv_b becomes float32 (`turned_heads`): the file's numbers, exactly, in 4 bytes each, which
    are 370 MB for all layers of GLM-4.7-Flash.
    """
    if not w.has("attn_kv_b"):
        return w("attn_k_b"), w("attn_v_b")
    whole, each = w("attn_kv_b"), c.plain + c.value
    return turned_heads(whole, c.heads, 0, c.plain), head_rows(whole, c.heads, c.plain, each, apart=True)


def part_of(h: Tensor, w: Layer, name: str, first: int, end: int) -> Tensor:
    """h [T, D] times some rows of a matrix, plus their biases."""
    projected = ops.linear(h, w(name).part(first, end))
    return ops.add_bias(projected, w(f"{name}.bias").part(first, end)) if w.has(f"{name}.bias") else projected
