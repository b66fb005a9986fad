"""What checkpoints that mlx-lm converted have in another way than those that they are of, by mlx-lm 0.32's `sanitize`.

Names: heads' projections of latent attention apart, as GGUF has them, and networks by one name everywhere (experts':
`expert_weights.OLD_WORDS`). Convolutions are [C, t, 1] instead of [C, 1, t], which are the same numbers one after
another; and where a model of gated DeltaNet has them so, its norms are 1 + w already. Gemma's norms stay w.
"""

from collections.abc import Mapping

from sotol.formats.weights import Weight

__all__ = ["NAMES", "norms_are_sums"]

LAYER = "model.layers.{}"
# By the names of the tables of weights: a table's own name for something comes before.
NAMES: Mapping[str, str] = {
    f"{LAYER}.self_attn.embed_q": "blk.{}.attn_k_b",
    f"{LAYER}.self_attn.unembed_out": "blk.{}.attn_v_b",
    **{f"{LAYER}.mlp.{part}_proj": f"blk.{{}}.ffn_{part}_shexp" for part in ("gate", "up", "down")},  # Granite 4
    **{f"{LAYER}.feed_forward.{part}_proj": f"blk.{{}}.ffn_{part}" for part in ("gate", "up", "down")},  # LFM2's
}


def norms_are_sums(weights: Mapping[str, Weight]) -> bool:
    """Whether norms have 1 + w where a model's own checkpoints have w. weights: by their one name."""
    convolutions = (weight.shape for name, weight in weights.items() if name.endswith(".ssm_conv1d"))
    return any(len(shape) == 3 and shape[1] > 1 and shape[2] == 1 for shape in convolutions)
