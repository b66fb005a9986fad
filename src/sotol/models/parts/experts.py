"""Mixtures of experts: what metadata says of them, their weights, and the network in the feed-forward one's place.

Papers: Shazeer et al. 2017 (arXiv 1701.06538), for decoders Fedus et al. 2021 (arXiv 2101.03961). `mixtures.py` has
what whole decoders with experts have in common.
T tokens, D width, E experts, k of them chosen for each token, f an expert's width, s the shared expert's.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

import numpy as np

from sotol.errors import ModelError
from sotol.models.binding.bind import Name, Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.model import Layer
from sotol.models.parts.decoder import project
from sotol.program import ops
from sotol.program.program import Constant, Tensor

__all__ = [
    "KEYS", "WEIGHTS", "Experts", "choose", "expert_names", "mixture", "networks", "read_experts", "shared_expert",
    "shared_names",
]  # fmt: skip


def expert_names(at: str) -> Table:
    """The names of experts' weights, by what Hugging Face's checkpoints call all of them: "….mlp.experts"."""
    return {
        "blk.{}.ffn_gate_exps": Name(f"{at}.gate_proj", "E f D"),
        "blk.{}.ffn_up_exps": Name(f"{at}.up_proj", "E f D"),
        "blk.{}.ffn_down_exps": Name(f"{at}.down_proj", "E D f"),
    }


def shared_names(at: str) -> Table:
    """The names of the weights of an expert that every token takes, likewise: "….mlp.shared_experts"."""
    return {
        "blk.{}.ffn_gate_shexp": Name(f"{at}.gate_proj", "s D"),
        "blk.{}.ffn_up_shexp": Name(f"{at}.up_proj", "s D"),
        "blk.{}.ffn_down_shexp": Name(f"{at}.down_proj", "D s"),
    }


# The usual names.
WEIGHTS: Table = {
    "blk.{}.ffn_gate_inp": Name("model.layers.{}.mlp.gate", "E D"),
    **expert_names("model.layers.{}.mlp.experts"),
}

KEYS: Keys = {
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

    def letters(self, _layer: int | None) -> Mapping[str, int]:
        """Sizes by the letters of the tables of weights."""
        return {"E": self.number, "f": self.width}


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


def mixture(
    h: Tensor, w: Layer, c: Experts, act: str, *, gated: bool = True, inputs: Tensor | None = None
) -> Tensor:  # fmt: skip
    """The sum of the chosen experts' networks over h [T, D], each times its weight: [T, D].

    The router and experts have biases, and the choice has another one, where the file has them. gated: whether networks
    are act(x G') * (x U') or just act(x U'). inputs: what goes into experts, if it is not h itself: of another width,
    which the result has then.
    """
    choice, weights = choose(project(h, w, "ffn_gate_inp"), w, c)
    return ops.combine(networks(h if inputs is None else inputs, choice, w, act, gated=gated), weights)


def networks(h: Tensor, choice: Tensor, w: Layer, act: str, *, gated: bool = True) -> Tensor:
    """The chosen experts' networks over h, [T, D] or for each choice [T, k, D], side by side: [T, k, D]."""
    inner = [project_each(h, choice, w, f"ffn_{part}_exps") for part in (("gate", "up") if gated else ("up",))]
    active = ops.glu(*inner, act=act) if gated else ops.activate(*inner, act=act)  # [T, k, f]
    return project_each(active, choice, w, "ffn_down_exps")


def choose(logits: Tensor, w: Layer, c: Experts) -> tuple[Tensor, Tensor]:
    """The experts that each token takes by its logits [T, E], and their weights: both [T, k].

    The choice has a bias of its own where the file has one.
    """
    none = Constant("no_bias", np.zeros(c.number, np.float32))
    chosen = ops.choose_experts(
        logits, w("exp_probs_b.bias") if w.has("exp_probs_b.bias") else none, k=c.used, scores=c.scores,
        normalised=c.normalised, factor=c.factor, groups=c.groups, groups_used=c.groups_used, best=c.best,
    )  # fmt: skip
    return cast("tuple[Tensor, Tensor]", chosen)


def shared_expert(h: Tensor, w: Layer, act: str) -> Tensor:
    """The network that every token of h [T, D] takes besides: [T, D]."""
    gate, up = (project(h, w, f"ffn_{part}_shexp") for part in ("gate", "up"))  # [T, s]
    return project(ops.glu(gate, up, act=act), w, "ffn_down_shexp")


def project_each(x: Tensor, choice: Tensor, w: Layer, name: str) -> Tensor:
    """x, [T, M] or [T, k, M], times each chosen expert's matrix, plus its bias, if the file has it: [T, k, N]."""
    projected = ops.expert_linear(x, choice, w(name))
    return ops.add_expert_bias(projected, choice, w(f"{name}.bias")) if w.has(f"{name}.bias") else projected
