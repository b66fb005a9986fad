"""Granite 4 H and Granite 3's mixtures of experts: Granite with layers of Mamba-2, with experts, or with both.

Papers: those of Granite and Mamba-2; facts that they leave out are from Hugging Face's modeling_granitemoehybrid.py. A
network that all tokens take is beside the experts, or alone.
T tokens, R rows with logits, D width, H query heads, K key-value heads, d head width, F width of
the network in GGUF files without experts, s of it elsewhere, V vocabulary, E experts, f their width; `mamba2.py` has
its own letters.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import granite, llama
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes, read_sizes
from sotol.models.model import Layer, Model, StepSymbols
from sotol.models.parts import decoder, experts, mamba2
from sotol.models.parts.decoder import attend, logits, project
from sotol.models.parts.experts import Experts, expert_names, mixture, read_experts
from sotol.models.parts.mamba2 import Mamba2, read_mamba2
from sotol.models.parts.rope import Rope
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

SHARED = "model.layers.{}.shared_mlp"

WEIGHTS: Table = {
    **decoder.OUTER,
    **decoder.NORMS,
    **llama.ATTENTION,
    **mamba2.weights_of("model.layers.{}.mamba"),
    "blk.{}.ffn_gate": Name("", "F D"),
    "blk.{}.ffn_up": Name("", "F D"),
    "blk.{}.ffn_down": Name("", "D F"),
    "blk.{}.ffn_gate_inp": Name("model.layers.{}.mlp.router", "E D"),
    **expert_names("model.layers.{}.mlp.experts"),
    "blk.{}.ffn_gate_shexp": Name("", "s D"),
    "blk.{}.ffn_up_shexp": Name(f"{SHARED}.input_linear", "s D"),  # of both: the gate's rows come first
    "blk.{}.ffn_down_shexp": Name(f"{SHARED}.output_linear", "D s"),
}

KEYS: Keys = {
    **experts.KEYS,
    **granite.KEYS,
    "expert_feed_forward_length": ("intermediate_size",),  # GGUF has feed_forward_length
    "expert_shared_feed_forward_length": ("shared_intermediate_size",),
    "rope.kind": ("position_embedding_type",),  # GGUF has rope.scaling.finetuned, false where nothing rotates
    "layer_kinds": ("layer_types", "layers_block_type"),  # in GGUF, Mamba-2 has no key-value heads
    **mamba2.KEYS,
}

KINDS = {"linear_attention": True, "mamba": True, "full_attention": False, "attention": False}


class Config(NamedTuple):
    """What the metadata says of such a model."""

    granite: granite.Config
    recurrent: tuple[bool, ...]  # of each layer: whether it is a Mamba-2; else it has attention
    mamba: Mamba2 | None  # None: no layer is one
    experts: Experts | None
    shared_width: int  # of the network that all tokens take, if files have it beside experts; 0: they have none there

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("mamba_proj_bias", False)
        sizes = read_sizes(metadata, checkpoint, least=0)
        recurrent = read_recurrent(metadata, sizes)
        heads = tuple(0 if one else n for n, one in zip(sizes.kv_heads, recurrent, strict=True))
        trunk = granite.Config.with_sizes(metadata, sizes._replace(kv_heads=heads))
        if metadata.has("layer_kinds"):  # a config.json that could say it
            trunk = trunk._replace(rotates=metadata.find("rope.kind") == "rope")
        with_experts, width = metadata.integer("expert_count", 0, least=0) > 0, sizes.ffn_width[0]
        return cls(
            trunk,
            recurrent,
            read_mamba2(metadata) if any(recurrent) else None,
            read_experts(metadata, scores="chosen", normalised=False, width=width) if with_experts else None,
            metadata.integer("expert_shared_feed_forward_length", 0, least=0),
        )

    @property
    def sizes(self) -> Sizes:
        return self.granite.sizes

    @property
    def rope(self) -> Rope:
        return self.granite.rope

    def letters(self, layer: int | None) -> Mapping[str, int]:
        recurrent, alone = layer is not None and self.recurrent[layer], self.experts is None and not self.shared_width
        letters = dict(self.sizes.letters(layer, attends=not recurrent, network=alone))
        if recurrent and self.mamba is not None:
            letters |= self.mamba.letters(layer)
        if self.experts is not None:
            letters |= self.experts.letters(layer)
        return letters | {"s": self.shared_width} if self.shared_width else letters


def read_recurrent(metadata: Metadata, sizes: Sizes) -> tuple[bool, ...]:
    """Of each layer: whether it is a Mamba-2. ModelError for a kind that is not known."""
    said = metadata.find("layer_kinds")
    if said is None:
        return tuple(count == 0 for count in sizes.kv_heads)
    if not isinstance(said, list) or len(said) != sizes.layers or any(kind not in KINDS for kind in said):
        raise ModelError(f"config.json's layer_types is {str(said)[:60]!r}: sotol has {', '.join(KINDS)}")
    return tuple(KINDS[kind] for kind in said)


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    g = c.granite
    table = g.rope.table("rope", m.context) if g.rotates else None
    x = ops.scale(ops.embed(m.w("token_embd"), step.tokens), factor=g.embedding_scale)  # [T, D]
    for w in m.layers():
        h = ops.rms_norm(x, w("attn_norm"), eps=g.eps)
        if c.recurrent[w.index] and c.mamba is not None:
            h = mamba2.mix(h, w, c.mamba, step, g.eps)
        else:
            h = attend(h, w, c.sizes.of(w.index), step, table, "pairs", scale=g.attention_scale)
        x = x + ops.scale(h, factor=g.residual_scale)
        h = network(ops.rms_norm(x, w("ffn_norm"), eps=g.eps), w, c)
        x = x + ops.scale(h, factor=g.residual_scale)
    return ops.scale(logits(m, x, step, g.eps), factor=1 / g.logit_scale)


def network(h: Tensor, w: Layer, c: Config) -> Tensor:
    """The experts' networks over h [T, D], and the one that all tokens take, or either of them alone."""
    if c.experts is not None and not c.shared_width:
        return mixture(h, w, c.experts, "silu")
    suffix = "_shexp" if c.shared_width else ""
    gated = ops.glu(project(h, w, f"ffn_gate{suffix}"), project(h, w, f"ffn_up{suffix}"), act="silu")
    shared = project(gated, w, f"ffn_down{suffix}")
    return shared if c.experts is None else mixture(h, w, c.experts, "silu") + shared
