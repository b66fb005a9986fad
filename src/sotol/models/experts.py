"""Mixtures of experts: what metadata says of them, their weights, and the network in the feed-forward one's place.

Paper: Shazeer et al. 2017 (arXiv 1701.06538), for decoders Fedus et al. 2021 (arXiv 2101.03961).
T tokens, D width, E experts, k of them chosen for each token, f an expert's width, s the shared expert's.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

import numpy as np

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import decoder
from sotol.models.bind import Name, Table
from sotol.models.decoder import Sizes
from sotol.models.metadata import Keys, Metadata
from sotol.models.model import Layer
from sotol.models.rope import Rope
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "Experts", "mixture", "read_decoder", "read_experts"]

DENSE = {"blk.{}.ffn_gate", "blk.{}.ffn_up", "blk.{}.ffn_down"}

# A decoder's, with experts in place of its feed-forward network.
WEIGHTS: Table = {
    **{name: weight for name, weight in decoder.WEIGHTS.items() if name not in DENSE},
    "blk.{}.ffn_gate_inp": Name("model.layers.{}.mlp.gate", "E D"),
    "blk.{}.ffn_gate_exps": Name("model.layers.{}.mlp.experts.gate_proj", "E f D"),
    "blk.{}.ffn_up_exps": Name("model.layers.{}.mlp.experts.up_proj", "E f D"),
    "blk.{}.ffn_down_exps": Name("model.layers.{}.mlp.experts.down_proj", "E D f"),
}

KEYS: Keys = {
    **decoder.KEYS,
    "expert_count": ("num_experts", "num_local_experts", "n_routed_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_weights_norm": ("norm_topk_prob",),
    "expert_weights_scale": ("routed_scaling_factor",),
    "expert_group_count": ("n_group",),
    "expert_group_used_count": ("topk_group",),
}

SCORES = {1: "softmax", 2: "sigmoid", 3: "chosen"}  # by GGUF's expert_gating_func: see `ops.choose_experts`


class Experts(NamedTuple):
    """How many experts a layer has, and how a token's are chosen and weighed (`ops.choose_experts`)."""

    number: int
    used: int
    width: int
    scores: str
    normalised: bool
    factor: float = 1.0
    groups: int = 1
    groups_used: int = 1
    best: int = 2  # experts that a group is judged by

    def letters(self) -> Mapping[str, int]:
        """Sizes by the letters of the tables of weights."""
        return {"E": self.number, "f": self.width}


class Config(NamedTuple):
    """The config of a decoder whose layers all have experts. Architectures add `read`."""

    decoder: decoder.Config
    experts: Experts
    shared_width: int = 0  # of an expert that every token takes; 0: there is none

    @property
    def layers(self) -> int:
        return self.decoder.layers

    @property
    def sizes(self) -> Sizes:
        return self.decoder.sizes

    @property
    def rope(self) -> Rope:
        return self.decoder.rope

    def dims(self, layer: int | None) -> Mapping[str, int]:
        return {**self.decoder.dims(layer), **self.experts.letters(), "s": self.shared_width}


def read_decoder(metadata: Metadata, checkpoint: Checkpoint) -> decoder.Config:
    """The config of a decoder all of whose layers have experts; ModelError names what is missing, wrong, or not so."""
    metadata.expect("mlp_only_layers", [])  # layers without experts: no released model has any, nor has GGUF a key
    metadata.expect("decoder_sparse_step", 1)
    return decoder.Config.read(metadata, checkpoint)


def read_experts(metadata: Metadata, *, scores: str = "softmax", normalised: bool, width: int | None = None) -> Experts:
    """The experts, by the metadata; ModelError names what is missing or can't be.

    scores, normalised, width: where the file does not say it.
    """
    count, used = metadata.integer("expert_count"), metadata.integer("expert_used_count")
    groups = metadata.integer("expert_group_count", 1)
    groups_used = metadata.integer("expert_group_used_count", groups)
    if count % groups or groups_used > groups:
        raise ModelError(f"{groups_used} of {groups} groups of {count} experts: groups must be equal, and be there")
    if used > groups_used * (count // groups):
        raise ModelError(f"expert_used_count is {used}: a token can choose among {groups_used * (count // groups)}")
    if metadata.has("expert_gating_func"):
        function = metadata.integer("expert_gating_func", least=0)
        if function not in SCORES:
            raise ModelError(f"expert_gating_func is {function}: sotol has {', '.join(map(str, SCORES))}")
        scores = SCORES[function]
    return Experts(
        count,
        used,
        metadata.integer("expert_feed_forward_length", width),
        scores,
        metadata.flag("expert_weights_norm", normalised),
        metadata.number("expert_weights_scale", 0.0, zero=True) or 1.0,  # 0: none, as llama.cpp has it
        groups,
        groups_used,
    )


def mixture(h: Tensor, w: Layer, c: Experts, act: str) -> Tensor:
    """The sum of the chosen experts' networks over h [T, D], each times its weight: [T, D].

    The router, and experts, have biases where the file has them.
    """
    logits = decoder.project(h, w, "ffn_gate_inp")  # [T, E]
    none = Constant("no_bias", np.zeros(c.number, np.float32))
    chosen = ops.choose_experts(
        logits, none, k=c.used, scores=c.scores, normalised=c.normalised, factor=c.factor, groups=c.groups,
        groups_used=c.groups_used, best=c.best,
    )  # fmt: skip
    choice, weights = cast("tuple[Tensor, Tensor]", chosen)  # both [T, k]
    gate, up = (project_each(h, choice, w, f"ffn_{part}_exps") for part in ("gate", "up"))  # [T, k, f]
    out = project_each(ops.glu(gate, up, act=act), choice, w, "ffn_down_exps")  # [T, k, D]
    return ops.combine(out, weights)


def project_each(x: Tensor, choice: Tensor, w: Layer, name: str) -> Tensor:
    """x, [T, M] or [T, k, M], times each chosen expert's matrix, plus its bias, if the file has it: [T, k, N]."""
    projected = ops.expert_linear(x, choice, w(name))
    return ops.add_expert_bias(projected, choice, w(f"{name}.bias")) if w.has(f"{name}.bias") else projected
