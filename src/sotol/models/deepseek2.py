"""DeepSeek-V2 and V3, GLM-4.7-Flash: latent attention, and experts, of which some are shared, from some layer on.

Papers: DeepSeek-AI 2024 (arXiv 2405.04434 and 2412.19437); facts that they leave out are from Hugging Face's
modeling_deepseek_v2.py, modeling_deepseek_v3.py and modeling_glm4_moe_lite.py. V2 judges a group of experts by its best
one; llama.cpp by its two best, as V3 has it. Latent vectors are normalised with an eps of their own (`latent.py`).
T tokens, R rows with logits, D width, V vocabulary, F feed-forward width, E experts, f their width, s that of the
shared ones together; more letters are in `latent.py`.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models.binding.bind import Table
from sotol.models.binding.metadata import Keys, Metadata
from sotol.models.binding.sizes import Sizes, read_sizes
from sotol.models.model import Model, StepSymbols
from sotol.models.parts import decoder, latent, mixtures
from sotol.models.parts.decoder import logits
from sotol.models.parts.experts import Experts, read_experts
from sotol.models.parts.latent import Latent, attend, read_latent
from sotol.models.parts.mixtures import feed_forward
from sotol.models.parts.rope import Rope, read_rope
from sotol.program import ops
from sotol.program.program import Tensor

__all__ = ["KEYS", "WEIGHTS", "Config", "forward"]

WEIGHTS: Table = {
    **decoder.OUTER,
    **decoder.NORMS,
    **mixtures.LATER,
    **mixtures.CHOICE_BIAS,
    **latent.WEIGHTS,
}

KEYS: Keys = {
    **mixtures.LATER_KEYS,
    **latent.KEYS,
    "mlp_layer_types": ("mlp_layer_types",),  # GGUF has no such key, nor the next ones
    "model_type": ("model_type",),
    "topk_method": ("topk_method",),
}
SIGMOID = ("deepseek_v3", "glm4_moe_lite", "kimi_k2")  # models whose experts' scores are sigmoids, by config.json
GLM_FLASH = (47, 48), 154880  # layers and vocabulary: older GGUF files of GLM-4.7-Flash do not say what scores it has


class Config(NamedTuple):
    """What the metadata says of such a model."""

    sizes: Sizes
    latent: Latent
    eps: float
    rope: Rope
    scale: float  # of scores
    dense: int  # layers before the first one with experts
    experts: Experts
    shared_width: int

    @classmethod
    def read(cls, metadata: Metadata, checkpoint: Checkpoint) -> "Config":
        """From metadata and the shape of the embedding; ModelError names what is missing or wrong."""
        metadata.expect("hidden_act", "silu")
        metadata.expect("mlp_bias", False)
        metadata.expect("rope_interleave", True)
        if metadata.has("attention.temperature_scale"):  # Mistral Large 3, whose queries grow with the position
            raise ModelError(f"{checkpoint.path}: deepseek2 with attention.temperature_scale is none of sotol's")
        heads = metadata.integer("attention.head_count")
        widths = read_latent(metadata, heads)
        sizes = read_sizes(metadata, checkpoint, head_width=widths.plain + widths.rotated)
        chosen = _read_experts(metadata, sizes)
        rope, scale = _read_rope(metadata, widths)
        return cls(
            sizes,
            widths,
            metadata.number("attention.layer_norm_rms_epsilon"),
            rope,
            scale,
            _read_dense(metadata, sizes.layers),
            chosen,
            chosen.width * metadata.integer("expert_shared_count"),
        )

    @property
    def mixed(self) -> tuple[bool, ...]:
        """Of each layer: whether it has experts; else it has a feed-forward network."""
        return tuple(i >= self.dense for i in range(self.sizes.layers))

    def letters(self, layer: int | None) -> Mapping[str, int]:
        letters = {**self.sizes.letters(layer), **self.experts.letters(layer)}
        return {**letters, **self.latent.letters(layer), "s": self.shared_width}


def _read_experts(metadata: Metadata, sizes: Sizes) -> Experts:
    if metadata.keys is None:
        layers, vocabulary = GLM_FLASH
        sigmoid = metadata.integer("block_count") in layers and sizes.vocabulary == vocabulary
    else:
        sigmoid = metadata.text("model_type", "") in SIGMOID
    chosen = read_experts(metadata, scores="sigmoid" if sigmoid else "softmax", normalised=False)
    if chosen.scores == "sigmoid":
        return chosen
    if metadata.keys is not None:
        chosen = chosen._replace(normalised=False)  # V2 does not heed the flag
    if metadata.text("topk_method", "group_limited_greedy") == "greedy":
        chosen = chosen._replace(groups=1, groups_used=1)
    return chosen._replace(best=1)


def _read_dense(metadata: Metadata, layers: int) -> int:
    if not metadata.has("mlp_layer_types"):
        return metadata.integer("leading_dense_block_count", 0, least=0)
    dense = metadata.layer_flags("mlp_layer_types", layers, 0, ("dense", "sparse"))
    if any(dense[sum(dense) :]):
        raise ModelError("config.json's mlp_layer_types: a layer without experts comes after one that has some")
    return sum(dense)


def _read_rope(metadata: Metadata, widths: Latent) -> tuple[Rope, float]:
    """The rotation, and the scale of scores, which YaRN changes by the square of its mscale of all dimensions.

    Of that, GGUF files of this architecture have a tenth. They do not have the other mscale, by whose ratio to the
    first one cosines and sines grow: it is the same in every released model.
    """
    rope = read_rope(metadata, widths.rotated)
    scale = (widths.plain + widths.rotated) ** -0.5
    everywhere = metadata.number("rope.scaling.yarn_log_multiplier", 0.0, zero=True)
    if rope.scaling != "yarn" or not everywhere:
        return rope, scale
    if metadata.keys is None:
        rope, everywhere = rope._replace(attention_factor=1.0), 10 * everywhere
    return rope, scale * (1 + 0.1 * everywhere * math.log(max(rope.factor, 1.0))) ** 2


def forward(m: Model, c: Config, step: StepSymbols) -> Tensor:
    """Logits [R, V]."""
    table = c.rope.table("rope", m.context)
    x = ops.embed(m.w("token_embd"), step.tokens)  # [T, D]
    for w in m.layers():
        x = x + attend(ops.rms_norm(x, w("attn_norm"), eps=c.eps), w, c.latent, step, table, c.scale)
        h = ops.rms_norm(x, w("ffn_norm"), eps=c.eps)
        x = x + feed_forward(h, w, c.experts, mixed=c.mixed[w.index], shared=True)
    return logits(m, x, step, c.eps)
