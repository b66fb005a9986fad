"""Nemotron-H and Nemotron 3 (Nano, Super): layers of Mamba-2, attention without positions, plain networks or experts.

Paper: NVIDIA 2025 (arXiv 2504.03624); facts that it leaves out are from Hugging Face's modeling_nemotron_h.py, but for
the least step of 0.001 that this has for prompts, and not for what follows them: NVIDIA's own code has none.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F feed-forward width,
V vocabulary, E experts, f their width, s the shared expert's, l that of what goes into experts; `mamba2.py` has its own
letters.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes, read_sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder, experts, mamba2
from sotol.models.parts.decoder import attend, logits, plain_feed_forward, project
from sotol.models.parts.experts import Experts, mixture, read_experts
from sotol.models.parts.mamba2 import Mamba2, read_mamba2
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

MIXER = "model.layers.{}.mixer"
PROJECTIONS = {"attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj",
               "ffn_up": "up_proj", "ffn_down": "down_proj"}  # fmt: skip

WEIGHTS: Table = {
    "token_embd": Name("model.embeddings", "V D"),
    "output_norm": Name("model.norm_f", "D"),
    "output": Name("lm_head", "V D"),
    "blk.{}.attn_norm": Name("model.layers.{}.norm", "D"),
    **mamba2.weights_of(MIXER),
    **{f"blk.{{}}.{ours}": Name(f"{MIXER}.{theirs}", decoder.WEIGHTS[f"blk.{{}}.{ours}"].shape)
       for ours, theirs in PROJECTIONS.items()},
    "blk.{}.ffn_gate_inp": Name(f"{MIXER}.gate", "E D"),
    "blk.{}.exp_probs_b.bias": Name(f"{MIXER}.gate.e_score_correction_bias", "E"),
    "blk.{}.ffn_up_exps": Name(f"{MIXER}.experts.up_proj", "E f l"),
    "blk.{}.ffn_down_exps": Name(f"{MIXER}.experts.down_proj", "E l f"),
    "blk.{}.ffn_up_shexp": Name(f"{MIXER}.shared_experts.up_proj", "s D"),
    "blk.{}.ffn_down_shexp": Name(f"{MIXER}.shared_experts.down_proj", "D s"),
    "blk.{}.ffn_latent_down": Name(f"{MIXER}.fc1_latent_proj", "l D"),
    "blk.{}.ffn_latent_up": Name(f"{MIXER}.fc2_latent_proj", "D l"),
}  # fmt: skip

KEYS: Keys = {
    **decoder.SIZE_KEYS,
    **experts.KEYS,
    "attention.layer_norm_rms_epsilon": ("layer_norm_epsilon",),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon",),
    "expert_shared_feed_forward_length": ("moe_shared_expert_intermediate_size",),
    "moe_latent_size": ("moe_latent_size",),
    "layer_kinds": ("layers_block_type", "hybrid_override_pattern"),  # GGUF has counts of each layer instead
    **mamba2.KEYS,
}

MAMBA, ATTENTION, PLAIN, EXPERTS = range(4)  # what a layer is
# By config.json's names, and by the letters of its patterns.
KINDS = {
    "linear_attention": MAMBA, "mamba": MAMBA, "M": MAMBA, "full_attention": ATTENTION, "attention": ATTENTION,
    "*": ATTENTION, "mlp": PLAIN, "-": PLAIN, "moe": EXPERTS, "E": EXPERTS,
}  # fmt: skip


class Config(NamedTuple):
    """What the metadata says of a Nemotron-H."""

    sizes: Sizes
    eps: float
    kinds: tuple[int, ...]  # of each layer
    mamba: Mamba2
    experts: Experts | None  # None: no layer has any
    shared_width: int
    latent_width: int  # of what goes into experts; 0: that of the model

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("mlp_hidden_act", "relu2")
        metadata.expect("mamba_hidden_act", "silu")
        for biased in ("use_bias", "attention_bias", "mlp_bias"):
            metadata.expect(biased, False)
        kinds = read_kinds(metadata)
        if kinds is not None:  # config.json need not say how many layers there are
            metadata = metadata._replace(values={**metadata.values, "num_hidden_layers": len(kinds)})
        sizes = read_sizes(metadata, checkpoint, least=0)
        with_experts = metadata.has("expert_count") if kinds is None else EXPERTS in kinds
        if kinds is None:
            counts = zip(sizes.kv_heads, sizes.ffn_width, strict=True)
            network = EXPERTS if with_experts else PLAIN
            kinds = tuple(ATTENTION if heads else network if width else MAMBA for heads, width in counts)
        sizes = sizes._replace(
            kv_heads=tuple(n * (kind == ATTENTION) for n, kind in zip(sizes.kv_heads, kinds, strict=True)),
            ffn_width=tuple(n * (kind >= PLAIN) for n, kind in zip(sizes.ffn_width, kinds, strict=True)),
        )
        key = "attention.layer_norm_rms_epsilon"
        return cls(
            sizes,
            metadata.number(key if metadata.has(key) else "attention.layer_norm_epsilon"),
            kinds,
            read_mamba2(metadata),
            read_experts(metadata, scores="sigmoid", normalised=True) if with_experts else None,
            metadata.integer("expert_shared_feed_forward_length") if with_experts else 0,
            metadata.integer("moe_latent_size", 0, least=0),
        )

    def letters(self, layer: int | None) -> Mapping[str, int]:
        kind = None if layer is None else self.kinds[layer]
        letters = self.sizes.letters(layer, attends=kind == ATTENTION, network=kind == PLAIN)
        if kind == MAMBA:
            return {**letters, **self.mamba.letters(layer)}
        if kind == EXPERTS and self.experts is not None:
            width = self.latent_width or self.sizes.width
            return {**letters, **self.experts.letters(layer), "s": self.shared_width, "l": width}
        return letters


def read_kinds(metadata: Metadata) -> tuple[int, ...] | None:
    """What each layer is, by config.json; None where that says nothing. ModelError for a kind that is not known."""
    said = metadata.find("layer_kinds")
    if said is None:
        return None
    kinds = said if isinstance(said, str | list) else []
    if not kinds or not all(isinstance(kind, str) and kind in KINDS for kind in kinds):
        raise ModelError(f"config.json's layers_block_type is {str(said)[:80]!r}: sotol has {', '.join(KINDS)}")
    return tuple(KINDS[kind] for kind in kinds)


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        h, kind = ops.rms_norm(x, w("attn_norm"), eps=c.eps), c.kinds[w.index]
        if kind == MAMBA:
            x = x + mamba2.mix(h, w, c.mamba, step, c.eps)
        elif kind == ATTENTION:
            x = x + attend(h, w, c.sizes.of(w.index), step, None, "")
        elif c.experts is not None and kind == EXPERTS:
            x = x + mix_experts(h, w, c.experts, narrow=c.latent_width > 0)
        else:
            x = x + plain_feed_forward(h, w, "relu2")
    return logits(m, x, step, c.eps)


def mix_experts(h: Tensor, w: Layer, c: Experts, *, narrow: bool) -> Tensor:
    """The chosen experts' networks over h [T, D], or (narrow) over a projection of it, and the one of all tokens."""
    if narrow:
        out = mixture(h, w, c, "relu2", gated=False, inputs=ops.linear(h, w("ffn_latent_down")))  # [T, l]
        out = ops.linear(out, w("ffn_latent_up"))
    else:
        out = mixture(h, w, c, "relu2", gated=False)
    return out + project(ops.activate(project(h, w, "ffn_up_shexp"), act="relu2"), w, "ffn_down_shexp")
