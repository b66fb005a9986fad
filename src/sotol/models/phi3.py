"""Phi-3, Phi-3.5 and Phi-4: Llama's decoder with LongRoPE, windows in all layers, and heads that may rotate in part.

Papers: Abdin et al. 2024 (arXiv 2404.14219); Ding et al. 2024 on LongRoPE (arXiv 2402.13753); facts that they leave out
are from Hugging Face's modeling_phi3.py. Its checkpoints join queries, keys and values, and gate and up, as GGUF does.

LongRoPE has divisors for sequences up to the original context, and others for longer ones. Here, as in llama.cpp, the
context that a model is loaded for decides, since a token must not depend on how long its sequence becomes: Hugging
Face's code computes everything anew when a sequence outgrows the original context. So a sequence that stays below it
has Hugging Face's logits if the model was loaded for no more. llama.cpp leaves out the windows; Hugging Face has them.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary.
"""

from typing import NamedTuple

from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes, read_sizes
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder
from sotol.models.parts.decoder import WINDOW_KEYS, attend, feed_forward, logits, read_windows
from sotol.models.parts.rope import PARTIAL, Rope, read_longrope, read_rope
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **decoder.WEIGHTS,
    "blk.{}.attn_q": Name("model.layers.{}.self_attn.qkv_proj", "H*d D"),
    "blk.{}.attn_k": Name("", "K*d D"),
    "blk.{}.attn_v": Name("", "K*d D"),
    "blk.{}.ffn_gate": Name("", "F D"),
    "blk.{}.ffn_up": Name("model.layers.{}.mlp.gate_up_proj", "F D"),
    "rope_factors_short": Name("", "r"),  # config.json has LongRoPE's divisors
    "rope_factors_long": Name("", "r"),
}

KEYS: Keys = {
    **decoder.KEYS,
    **WINDOW_KEYS,
    "rope.partial_rotary_factor": PARTIAL,
    "rope.scaling.original_context_length": (
        "original_max_position_embeddings",
        *decoder.KEYS["rope.scaling.original_context_length"],
    ),
    "rope.scaling.short_factor": ("rope_parameters.short_factor", "rope_scaling.short_factor"),
    "rope.scaling.long_factor": ("rope_parameters.long_factor", "rope_scaling.long_factor"),
}
LONG = ("longrope", "su")  # the latter is its older name


class Config(NamedTuple):
    """What the metadata says of a Phi-3."""

    sizes: Sizes
    eps: float
    windows: tuple[int, ...]  # of each layer: keys that a token sees, itself included; 0: all
    rope: Rope

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and weights; ModelError names what is missing or wrong."""
        metadata.expect("hidden_act", "silu")
        s = read_sizes(metadata, checkpoint)
        long = "rope_factors_long" in checkpoint.weights or metadata.text("rope.scaling.type", "none") in LONG
        return cls(
            s,
            metadata.number("attention.layer_norm_rms_epsilon"),
            read_windows(metadata, s.layers, 0),
            read_longrope(metadata, s.head_width) if long else read_rope(metadata, s.head_width),
        )


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = rotation(m, c.rope)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h, window = ops.rms_norm(x, w("attn_norm"), eps=c.eps), c.windows[w.index]
        x = x + attend(h, w, c.sizes.of(w.index), step, table, "halves", window=window)
        x = x + feed_forward(ops.rms_norm(x, w("ffn_norm"), eps=c.eps), w, "silu")
    return logits(m, x, step, c.eps)


def rotation(m: Model, rope: Rope) -> Constant:
    """The table of RoPE, whose divisors a GGUF file has as weights."""
    if rope.scaling == "longrope" and not rope.long_factors:
        short, long = (tuple(m.numbers(name).tolist()) for name in ("rope_factors_short", "rope_factors_long"))
        rope = rope._replace(short_factors=short, long_factors=long)
    return rope.table("rope", m.context)
