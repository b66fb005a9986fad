"""What GGUF says otherwise of single architectures, by hand: keys, forms and numbers after llama.cpp's converter."""

from typing import Any

import numpy as np
import pytest
from tests.support.configs import hf_checkpoint

from sotol.formats import Checkpoint
from sotol.models import ARCHITECTURES
from sotol.quant import Float32Array
from sotol.tools import gguf_otherwise
from sotol.tools.gguf_names import with_gguf_names


def facts_of(architecture: str, **config: object) -> dict[str, Any]:
    """What a GGUF file says of the architecture, without its prefix."""
    metadata = with_gguf_names(hf_checkpoint(architecture, **config)).metadata
    prefix = f"{metadata['general.architecture']}."
    return {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}


def numbers(checkpoint: Checkpoint, name: str) -> Float32Array:
    return checkpoint.weights[name].decode()


def test_the_tables_are_of_architectures() -> None:
    assert gguf_otherwise.FACTS.keys() | gguf_otherwise.WEIGHTS.keys() <= set(ARCHITECTURES)


def test_latent_attention_has_one_head_of_keys_and_values() -> None:
    said = facts_of("deepseek2", rope_parameters={
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "original_max_position_embeddings": 16,
        "mscale": 0.707, "mscale_all_dim": 0.707,
    })  # fmt: skip
    latent = said["attention.kv_lora_rank"]
    assert (said["attention.head_count_kv"], said["attention.value_length"]) == (1, latent)
    assert said["attention.key_length"] == latent + said["rope.dimension_count"]
    assert said["rope.scaling.yarn_log_multiplier"] == pytest.approx(0.0707)
    assert "rope.scaling.yarn_attn_factor" not in said
    assert said["expert_gating_func"] == 2
    softmax = facts_of("deepseek2", model_type="deepseek_v2", topk_method="greedy", n_group=5)
    assert (softmax["expert_gating_func"], softmax["expert_group_count"]) == (1, 1)


def test_keys_of_latent_attention_are_transposed_head_by_head() -> None:
    given = hf_checkpoint("deepseek2")
    whole = numbers(given, "model.layers.0.self_attn.kv_b_proj.weight").reshape(2, 24 + 16, 32)
    made = with_gguf_names(given)
    for head in range(2):
        np.testing.assert_array_equal(numbers(made, "blk.0.attn_k_b.weight")[head], whole[head, :24].T)
        np.testing.assert_array_equal(numbers(made, "blk.0.attn_v_b.weight")[head], whole[head, 24:])
    assert "blk.0.attn_kv_b.weight" not in made.weights


def test_gemma4_says_the_widths_of_both_kinds_of_heads_and_which_pairs_rotate() -> None:
    said = facts_of("gemma4")
    assert said["attention.key_length"] == said["rope.dimension_count"] == 2 * said["attention.key_length_swa"]
    assert isinstance(said["attention.sliding_window_pattern"][0], bool)
    assert "final_logit_softcapping" in said
    divisors = numbers(with_gguf_names(hf_checkpoint("gemma4")), "rope_freqs.weight")
    turning = int((divisors == 1).sum())
    assert 0 < turning < len(divisors) == said["attention.key_length"] // 2
    np.testing.assert_array_equal(divisors[turning:], np.float32(1e30))


def test_llama4_says_only_that_there_are_no_chunks() -> None:
    assert "attention.sliding_window" not in facts_of("llama4")
    assert facts_of("llama4", attention_chunk_size=None)["attention.sliding_window"] == 0


@pytest.mark.parametrize("architecture", ["qwen35", "qwen35moe"])
def test_sections_of_qwen35(architecture: str) -> None:
    assert facts_of(architecture)["rope.dimension_sections"] == [11, 11, 10, 0]
    own = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    assert facts_of(architecture, rope_parameters=own)["rope.dimension_sections"] == [4, 2, 2, 0]


def test_which_layers_are_recurrent() -> None:
    said = facts_of("qwen3next", layer_types=["linear_attention", "full_attention"])
    assert said["attention.recurrent_layers"] == [True, False]
    assert said["ssm.inner_size"] == 64
    assert "ssm.value_size" not in said
    assert facts_of("lfm2")["attention.head_count_kv"] == [0, 1]


def test_projections_of_qwen3_next_are_apart() -> None:
    """Of each of 2 heads of keys: 8 rows of queries, 8 of keys, 32 of values, 32 of gates."""
    given = hf_checkpoint("qwen3next")
    rows = numbers(given, "model.layers.0.linear_attn.in_proj_qkvz.weight").reshape(2, 80, 32)
    made = with_gguf_names(given)
    mixed = [rows[:, begin:end].reshape(-1, 32) for begin, end in ((0, 8), (8, 16), (16, 48))]
    np.testing.assert_array_equal(numbers(made, "blk.0.attn_qkv.weight"), np.concatenate(mixed))
    np.testing.assert_array_equal(numbers(made, "blk.0.attn_gate.weight"), rows[:, 48:].reshape(-1, 32))


@pytest.mark.parametrize("architecture", ["granitehybrid", "nemotron_h"])
def test_shapes_of_mamba2(architecture: str) -> None:
    weights = with_gguf_names(hf_checkpoint(architecture)).weights
    assert (weights["blk.0.ssm_a"].shape, weights["blk.0.ssm_d"].shape) == ((4, 1), (4, 1))
    assert weights["blk.0.ssm_norm.weight"].shape == (2, 32)
    assert weights["blk.0.ssm_conv1d.weight"].shape[1] == 4


def test_a_nemotron_h_with_experts_has_another_name() -> None:
    dense, mixed = (with_gguf_names(hf_checkpoint(name)).metadata for name in ("nemotron_h", "nemotron_h_moe"))
    assert (dense["general.architecture"], mixed["general.architecture"]) == ("nemotron_h", "nemotron_h_moe")
    assert not any("expert" in key for key in dense)
    assert mixed["nemotron_h_moe.feed_forward_length"] == [0, 0, 32, 0]
    assert mixed["nemotron_h_moe.attention.head_count_kv"] == [0, 1, 0, 0]


def test_granites_without_experts_have_a_plain_network() -> None:
    plain = {"model_type": "granitemoehybrid", "num_local_experts": 0, "intermediate_size": 99}
    given = hf_checkpoint("granitehybrid", **plain)
    kept = {name: weight for name, weight in given.weights.items() if ".mlp." not in name}
    made = with_gguf_names(given._replace(weights=kept))
    assert made.weights["blk.0.ffn_up.weight"].shape == (64, 32)
    assert not any("shexp" in name for name in made.weights)
    assert made.metadata["granitehybrid.feed_forward_length"] == 64
    assert made.metadata["granitehybrid.rope.scaling.finetuned"] is True
    assert not any("expert" in key for key in made.metadata)


def test_numbers_of_each_layer_are_one_for_experts() -> None:
    said = facts_of("hunyuan-moe", moe_topk=[2, 2], moe_intermediate_size=[32, 32], num_shared_expert=[1, 1])
    assert (said["expert_used_count"], said["expert_feed_forward_length"]) == (2, 32)


def test_the_width_of_shared_experts() -> None:
    assert facts_of("ernie4_5-moe")["expert_shared_feed_forward_length"] == 64
    assert facts_of("minimax-m2")["expert_feed_forward_length"] == 32


def test_weights_stay_in_the_file() -> None:
    """What moves head by head is read when it is asked for."""
    for architecture, name in (("deepseek2", "attn_k_b"), ("deepseek2", "attn_v_b"), ("qwen3next", "attn_qkv")):
        given = hf_checkpoint(architecture)
        weight = with_gguf_names(given).weights[f"blk.0.{name}.weight"]
        own = [array for whole in given.weights.values() for array in whole.source.arrays]
        assert any(np.shares_memory(array, other) for array in weight.source.arrays for other in own)
