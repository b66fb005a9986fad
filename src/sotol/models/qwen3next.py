"""Qwen3-Next (80B-A3B): Qwen 3.5's mixture of experts, with the projections of a DeltaNet in two matrices.

No paper; all is from Hugging Face's modeling_qwen3_next.py. Heads of values lie by heads of keys, in GGUF, too.
T tokens, R rows with logits, D width, V vocabulary; of `delta_net.py` G heads of keys, N of values, k and v their
channels, C, and t; Z = C + N v, A = 2 N.
"""

from collections.abc import Mapping

from sotol.formats.weights import Checkpoint, Weight
from sotol.models import qwen2moe, qwen35, qwen35moe
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.changes import by_part, decay_rates
from sotol.models.binding.metadata import Metadata
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder, delta_net
from sotol.models.parts.delta_net import DeltaNet, Projected
from sotol.models.parts.experts import mixture
from sotol.models.qwen2moe import gated_expert
from sotol.models.qwen35moe import KEYS
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward", "parts_of"]

# Of each head of keys: its rows of queries, keys, values and gates, in checkpoints and older GGUF files; in GGUF files
# all queries, keys and values, and apart from them all gates.
WEIGHTS: Table = {
    **qwen35.ATTENTION,
    **{f"blk.{{}}.{name}": delta_net.WEIGHTS[f"blk.{{}}.{name}"]._replace(change=None)
       for name in ("ssm_conv1d", "ssm_dt.bias", "ssm_norm", "ssm_out")},
    "blk.{}.ssm_a": Name("model.layers.{}.linear_attn.A_log", "N", decay_rates),
    "blk.{}.attn_qkv": Name("", "C D"),
    "blk.{}.attn_gate": Name("", "N*v D"),
    "blk.{}.ssm_in": Name("model.layers.{}.linear_attn.in_proj_qkvz", "Z D"),
    "blk.{}.ssm_ba": Name("model.layers.{}.linear_attn.in_proj_ba", "A D"),
    **qwen2moe.EXPERTS,
}  # fmt: skip


class Config(qwen35moe.Config):
    """Qwen 3.5's."""

    __slots__ = ()

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        return cls(*qwen35moe.Config.read(metadata, checkpoint))

    def letters(self, layer: int | None) -> Mapping[str, int]:
        letters = super().letters(layer)
        if "N" not in letters:
            return letters
        return {**letters, "Z": letters["C"] + letters["N"] * letters["v"], "A": 2 * letters["N"]}


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    eps, table = c.trunk.eps, c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h = ops.rms_norm(x, w("attn_norm"), eps=eps)
        if c.trunk.recurrent[w.index]:
            x = x + delta_net.recur(project(h, w, c.trunk.delta), w, c.trunk.delta, step, eps, tiled=False)
        else:
            x = x + qwen35.attend(h, w, c.trunk, step, table)
        h = ops.rms_norm(x, w("post_attention_norm"), eps=eps)
        x = x + (mixture(h, w, c.experts, "silu") + gated_expert(h, w))
    return decoder.logits(m, x, step, eps)


def project(h: Tensor, w: Layer, c: DeltaNet) -> Projected:
    """A DeltaNet's projections of h [T, D]."""
    each = c.value_heads // c.key_heads
    mixed, gate = parts_of(w("ssm_in"), c) if w.has("ssm_in") else (w("attn_qkv"), w("attn_gate"))
    both = by_part(w("ssm_ba"), c.key_heads, (each, each))
    beta, alpha = both.part(0, c.value_heads), both.part(c.value_heads, 2 * c.value_heads)
    return Projected(*(ops.linear(h, weight) for weight in (mixed, gate, alpha, beta)))


def parts_of(whole: Weight, c: DeltaNet) -> tuple[Weight, Weight]:
    """Of ssm_in the rows of all queries, keys and values, and those of all gates: attn_qkv and attn_gate."""
    of_values, channels = c.value_heads // c.key_heads * c.value_width, c.channels
    rows = by_part(whole, c.key_heads, (c.key_width, c.key_width, of_values, of_values))
    return rows.part(0, channels), rows.part(channels, channels + c.key_heads * of_values)
