"""Falcon-H1: Mamba-2 and attention side by side in each layer, with factors on nearly all that a layer computes.

Paper: Falcon-LLM team 2025 (arXiv 2507.22448); facts that it leaves out are from Hugging Face's modeling_falcon_h1.py.
GGUF has no keys for the factors: its weights are multiplied by them already, and a norm comes behind the gate.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary; `mamba2.py` has its own letters.
"""

import math
from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder, mamba2
from sotol.models.parts.decoder import attend, logits, project
from sotol.models.parts.mamba2 import Mamba2, read_mamba2
from sotol.models.parts.recurrent import scaled
from sotol.models.parts.rope import Rope
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "Factors", "forward"]

NETWORK = "model.layers.{}.feed_forward"
UNLIMITED = [0.0, math.inf], [0.0, {"__float__": "Infinity"}]  # steps of time; the latter as transformers 5 saves it

WEIGHTS: Table = {
    **decoder.OUTER,
    "output_norm": Name("model.final_layernorm", "D"),
    "blk.{}.attn_norm": Name("model.layers.{}.input_layernorm", "D"),
    "blk.{}.ffn_norm": Name("model.layers.{}.pre_ff_layernorm", "D"),
    **mamba2.weights_of("model.layers.{}.mamba"),
    **decoder.ATTENTION,
    "blk.{}.ffn_gate": Name(f"{NETWORK}.gate_proj", "F D"),
    "blk.{}.ffn_up": Name(f"{NETWORK}.up_proj", "F D"),
    "blk.{}.ffn_down": Name(f"{NETWORK}.down_proj", "D F"),
    "blk.{}.ffn_gate.bias": Name(f"{NETWORK}.gate_proj.bias", "F"),
    "blk.{}.ffn_up.bias": Name(f"{NETWORK}.up_proj.bias", "F"),
    "blk.{}.ffn_down.bias": Name(f"{NETWORK}.down_proj.bias", "U"),
}

KEYS: Keys = {
    **decoder.KEYS,
    **mamba2.KEYS,
    "ssm.inner_size": ("mamba_d_ssm",),
    "ssm.normalised": ("mamba_rms_norm",),  # GGUF has no such key, nor the next ones
    "ssm.norm_first": ("mamba_norm_before_gate",),
    "factor.embedding": ("embedding_multiplier",),
    "factor.head": ("lm_head_multiplier",),
    "factor.attention_in": ("attention_in_multiplier",),
    "factor.attention_out": ("attention_out_multiplier",),
    "factor.key": ("key_multiplier",),
    "factor.ssm_in": ("ssm_in_multiplier",),
    "factor.ssm_out": ("ssm_out_multiplier",),
    "factor.ssm": ("ssm_multipliers",),
    "factor.network": ("mlp_multipliers",),
}


class Factors(NamedTuple):
    """What is multiplied with what; 1 everywhere in GGUF."""

    embedding: float  # the embeddings
    head: float  # logits
    attention_in: float  # what attention reads
    attention_out: float  # and gives
    key: float  # its keys
    ssm_out: float  # what Mamba-2 gives
    gate: float  # the network's gates
    down: float  # and what it gives


class Config(NamedTuple):
    """What the metadata says of a Falcon-H1."""

    sizes: Sizes
    eps: float
    rope: Rope
    mamba: Mamba2
    factors: Factors

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and weights; ModelError names what is missing or wrong."""
        for biased in ("mamba_proj_bias", "projectors_bias"):
            metadata.expect(biased, False)
        metadata.expect("time_step_limit", *UNLIMITED)
        usual = decoder.Config.read(metadata, checkpoint)
        inward = metadata.number("factor.ssm_in", 1.0)
        each = metadata.numbers("factor.ssm", 5) if metadata.has("factor.ssm") else (1.0,) * 5
        mamba = read_mamba2(metadata)._replace(
            normalised=metadata.flag("ssm.normalised", "blk.0.ssm_norm" in checkpoint.weights),
            norm_first=metadata.flag("ssm.norm_first", metadata.keys is not None),
            factors=mamba2.Factors(*(inward * factor for factor in each)),
        )
        return cls(*usual, mamba, read_factors(metadata))


def read_factors(metadata: Metadata) -> Factors:
    """The factors, by the metadata; 1 where it says nothing."""
    names = ("embedding", "head", "attention_in", "attention_out", "key", "ssm_out")
    single = [metadata.number(f"factor.{name}", 1.0) for name in names]
    return Factors(*single, *(metadata.numbers("factor.network", 2) if metadata.has("factor.network") else (1.0, 1.0)))


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table, by = c.rope.table("rope", m.context), c.factors
    x = scaled(ops.embed(m.w("token_embd"), step.tokens), by.embedding)  # [T, D]
    for w in m.layers():
        h, s = ops.rms_norm(x, w("attn_norm"), eps=c.eps), c.sizes.of(w.index)
        mixed = scaled(mamba2.mix(h, w, c.mamba, step, c.eps), by.ssm_out)
        scale = by.key * s.head_width**-0.5
        attended = attend(scaled(h, by.attention_in), w, s, step, table, "halves", scale=scale)
        x = x + (mixed + scaled(attended, by.attention_out))
        x = x + network(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, by)
    return scaled(logits(m, x, step, c.eps), by.head)


def network(h: Tensor, w: Layer, by: Factors) -> Tensor:
    """The gated feed-forward network over h [T, D]: [T, D]."""
    gated = ops.glu(scaled(project(h, w, "ffn_gate"), by.gate), project(h, w, "ffn_up"), act="silu")  # [T, F]
    return scaled(project(gated, w, "ffn_down"), by.down)
