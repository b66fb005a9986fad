"""DeepSeek's latent attention: what is cached, forms of its weights, what files say of experts, blocks left out."""

import math
import re

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.configs import hf_checkpoint
from tests.support.programs import same_programs
from tests.support.tracing import CONTEXT, IDS, attributes, logits_of, program_of

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint, Weight
from sotol.models import trace_model
from sotol.program.memory import Paged
from sotol.quant import Float32Array

HEADS, PLAIN, VALUE, LATENT = 2, 24, 16, 32
YARN = {
    "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0, "rope.scaling.original_context_length": 16,
}  # fmt: skip


def whole(checkpoint: Checkpoint, encoding: str = "F32") -> Checkpoint:
    """The checkpoint with keys and values of all heads in one matrix, as files had them first."""
    changed: dict[str, Float32Array | None] = {}
    for i in range(2):
        keys, values = (checkpoint.weights[f"blk.{i}.attn_{part}_b.weight"].decode() for part in ("k", "v"))
        rows = np.concatenate([keys.swapaxes(1, 2), values], axis=1).reshape(HEADS * (PLAIN + VALUE), LATENT)
        changed |= {f"blk.{i}.attn_k_b.weight": None, f"blk.{i}.attn_v_b.weight": None}
        changed[f"blk.{i}.attn_kv_b.weight"] = rows
    joined = with_weights(checkpoint, changed)
    encoded = {
        name: Weight.from_values(name, w.decode(), encoding) if ".attn_kv_b." in name else w
        for name, w in joined.weights.items()
    }
    return joined._replace(weights=encoded)


def old(checkpoint: Checkpoint) -> Checkpoint:
    """With the widths of keys and values where newer files have those of the latent vector."""
    newer = ("attention.key_length_mla", "attention.value_length_mla")
    kept = {key: value for key, value in checkpoint.metadata.items() if not key.endswith(newer)}
    return checkpoint._replace(
        metadata={**kept, "deepseek2.attention.key_length": PLAIN + 8, "deepseek2.attention.value_length": VALUE}
    )


def test_a_token_keeps_one_vector() -> None:
    layouts = [cache.layout for cache in program_of("deepseek2").caches()]
    assert layouts == [Paged(1, LATENT + 8, LATENT, latent=True)] * 2


def test_old_files_are_the_same_model() -> None:
    checkpoint = random_checkpoint("deepseek2")
    want = logits_of(trace_model(checkpoint, CONTEXT), IDS)
    np.testing.assert_array_equal(logits_of(trace_model(old(whole(checkpoint)), CONTEXT), IDS), want)


@pytest.mark.parametrize("encoding", ["BF16", "Q8_0"])
def test_encoded_numbers_are_kept(encoding: str) -> None:
    """A column of blocks becomes float32: the same numbers."""
    joined = whole(random_checkpoint("deepseek2"), encoding)
    exact = {name: w.decode() for name, w in joined.weights.items() if ".attn_kv_b." in name}
    program = trace_model(joined, CONTEXT)
    keys = [x for x in program.weights() if x.shape == (HEADS, LATENT, PLAIN)]
    assert {x.encoding.name for x in keys} == {"BF16" if encoding == "BF16" else "F32"}
    want = logits_of(trace_model(with_weights(joined, dict(exact)), CONTEXT), IDS)
    np.testing.assert_array_equal(logits_of(program, IDS), want)


def test_queries_without_a_latent_vector() -> None:
    checkpoint = random_checkpoint("deepseek2")
    lite = checkpoint._replace(metadata={**checkpoint.metadata, "deepseek2.attention.q_lora_rank": 0})
    changed: dict[str, Float32Array | None] = {}
    for i in range(2):
        changed |= {f"blk.{i}.attn_q_{part}.weight": None for part in ("a", "b", "a_norm")}
        changed[f"blk.{i}.attn_q.weight"] = checkpoint.weights[f"blk.{i}.attn_q_b.weight"].decode()
    program = trace_model(with_weights(lite, changed), CONTEXT)
    assert np.isfinite(logits_of(program, IDS)).all()
    assert len([node for node in program.nodes if node.op.name == "rms_norm"]) == 2 * 3 + 1  # none of queries
    with pytest.raises(ModelError, match=r"weight blk\.0\.attn_q_a has shape \[32, 32\], not \[0, 32\]"):
        trace_model(lite, CONTEXT)
    with pytest.raises(ModelError, match=r"weight blk\.0\.attn_q_a is missing"):
        trace_model(with_weights(checkpoint, changed), CONTEXT)


def test_the_scale_of_scores() -> None:
    """By the width of whole keys; with YaRN, by the square of its mscale, of which files have a tenth."""
    plain = 32**-0.5
    assert attributes(program_of("deepseek2"), "attention", "scale") == [plain] * 2
    said = {key.replace(".", "__"): value for key, value in YARN.items()}
    assert attributes(program_of("deepseek2", **said), "attention", "scale") == [plain] * 2
    (scale, _) = attributes(
        program_of("deepseek2", **said, rope__scaling__yarn_log_multiplier=0.0707), "attention", "scale"
    )
    assert scale == pytest.approx(plain * (1 + 0.1 * 0.707 * math.log(40)) ** 2)


@pytest.mark.parametrize(
    ("keys", "scores", "best", "normalised"),
    [
        ({"expert_gating_func": 2, "expert_weights_norm": True}, "sigmoid", 2, True),
        ({"expert_gating_func": 1}, "softmax", 1, False),
        ({"expert_gating_func": None}, "softmax", 1, False),
    ],
)
def test_what_gguf_says_of_scores(keys: dict[str, object], scores: str, best: int, normalised: bool) -> None:
    program = program_of("deepseek2", **keys)
    found = [tuple(attributes(program, "choose_experts", name)) for name in ("scores", "best", "normalised")]
    assert found == [(scores,), (best,), (normalised,)]


@pytest.mark.parametrize(
    ("config", "scores", "groups", "normalised"),
    [
        ({"model_type": "deepseek_v3", "n_group": 5, "topk_group": 3}, "sigmoid", 5, True),
        ({"model_type": "glm4_moe_lite", "norm_topk_prob": False}, "sigmoid", 1, False),
        ({"model_type": "deepseek_v2", "n_group": 5, "topk_group": 3, "topk_method": "greedy"}, "softmax", 1, False),
        ({"model_type": "deepseek_v2", "n_group": 5, "topk_group": 3}, "softmax", 5, False),
    ],
)
def test_what_a_config_says_of_scores(config: dict[str, object], scores: str, groups: int, normalised: bool) -> None:
    program = trace_model(hf_checkpoint("deepseek2", **config), CONTEXT)
    found = [tuple(attributes(program, "choose_experts", name)) for name in ("scores", "groups", "normalised")]
    assert found == [(scores,), (groups,), (normalised,)]


def test_a_bias_of_the_choice_changes_who_is_chosen() -> None:
    checkpoint = random_checkpoint("deepseek2")
    before = logits_of(trace_model(checkpoint, CONTEXT), IDS)
    drawn = {"blk.1.exp_probs_b.bias": np.array([9, 8, 0, 0, 0], np.float32)}
    after = logits_of(trace_model(with_weights(checkpoint, {**drawn}), CONTEXT), IDS)
    assert np.abs(after - before).max() > 1e-3


def test_layers_by_name() -> None:
    """As GLM-4.7-Flash's config has them."""
    said = {"model_type": "glm4_moe_lite", "first_k_dense_replace": None}
    program = trace_model(hf_checkpoint("deepseek2", **said, mlp_layer_types=["dense", "sparse"]), CONTEXT)
    assert [node.layer for node in program.nodes if node.op.name == "choose_experts"] == [1]
    for types, missing in ((["sparse", "sparse"], "blk.0.ffn_gate_inp"), (["dense", "dense"], "blk.1.ffn_gate")):
        with pytest.raises(ModelError, match=rf"weight {re.escape(missing)} is missing"):
            trace_model(hf_checkpoint("deepseek2", **said, mlp_layer_types=types), CONTEXT)


def test_a_dense_layer_behind_a_sparse_one_is_refused() -> None:
    with pytest.raises(ModelError, match="mlp_layer_types: a layer without experts comes after one that has some"):
        trace_model(hf_checkpoint("deepseek2", mlp_layer_types=["sparse", "dense"]), CONTEXT)


def test_blocks_that_predict_further_tokens_are_left_out() -> None:
    """GGUF counts them as layers, config.json does not."""
    plain = random_checkpoint("deepseek2")
    more = {f"blk.2.{name}.weight": np.ones((2, 2), np.float32) for name in ("nextn.eh_proj", "attn_q_a", "ffn_norm")}
    counted = {"deepseek2.block_count": 3, "deepseek2.nextn_predict_layers": 1}
    gguf = with_weights(plain, {**more})._replace(metadata={**plain.metadata, **counted})
    same_programs(trace_model(gguf, CONTEXT), trace_model(plain, CONTEXT))
    checkpoint = hf_checkpoint("deepseek2")
    more = {
        f"model.layers.2.{name}.weight": np.ones((2, 2), np.float32) for name in ("eh_proj", "mlp.experts.0.up_proj")
    }
    predicting = with_weights(hf_checkpoint("deepseek2", num_nextn_predict_layers=1), {**more})
    same_programs(trace_model(predicting, CONTEXT), trace_model(checkpoint, CONTEXT))
    wrong = gguf._replace(metadata={**gguf.metadata, "deepseek2.nextn_predict_layers": 3})
    with pytest.raises(ModelError, match="block_count is 3: more than the 3 of nextn_predict_layers are needed"):
        trace_model(wrong, CONTEXT)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("attention.kv_lora_rank", 0, "attention.kv_lora_rank is '0'"),
        ("attention.key_length_mla", 8, "attention.key_length_mla is '8', not a whole number from 9"),
        ("rope.dimension_count", 7, "rope.dimension_count is 7: it must be even"),
        ("expert_shared_count", None, "expert_shared_count is missing"),
        ("attention.value_length_mla", 17, r"attn_v_b has shape \[2, 16, 32\], not \[2, 17, 32\]"),
        ("leading_dense_block_count", -1, "leading_dense_block_count is '-1'"),
        ("attention.temperature_scale", 0.1, "with attention.temperature_scale is none of sotol's"),
    ],
)
def test_what_can_not_be(key: str, value: object, said: str) -> None:
    checkpoint = random_checkpoint("deepseek2")
    metadata = {**checkpoint.metadata, f"deepseek2.{key}": value}
    with pytest.raises(ModelError, match=said):
        trace_model(checkpoint._replace(metadata=metadata), CONTEXT)


@pytest.mark.parametrize(("key", "value"), [("rope_interleave", False), ("mlp_bias", True)])
def test_configs_of_other_models_are_refused(key: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"^config\.json's {key} is {value!r}: sotol runs deepseek2 with "):
        trace_model(hf_checkpoint("deepseek2", **{key: value}), CONTEXT)
