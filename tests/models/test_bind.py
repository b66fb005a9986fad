"""Checkpoints with Hugging Face's names: the same program over the same numbers as their conversions to GGUF."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.checkpoints import DEFAULTS, full_name, home_of, model_type_of, random_checkpoint, with_weights
from tests.support.converting import as_gguf
from tests.support.programs import same_programs
from tests.support.running import RUNNERS, limits_for, run_text

from sotol.errors import ModelError
from sotol.formats import read_gguf
from sotol.formats.weights import Checkpoint, Weight
from sotol.models import ARCHITECTURES, trace_model
from sotol.models.bind import draft_names
from sotol.quant import Float32Array

IDS = np.random.default_rng(6).integers(0, 48, 20).tolist()
LATER_EXPERTS: dict[str, object] = {
    "moe_intermediate_size": 32, "n_shared_experts": 2, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5,
}  # fmt: skip
DELTA_NET: dict[str, object] = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
}
NEMOTRON_H: dict[str, object] = {
    "layers_block_type": ["mamba", "attention", "mlp", "mamba"],
    "conv_kernel": 4,
    "ssm_state_size": 6,
    "n_groups": 2,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "layer_norm_epsilon": 1e-6,
}
CONFIGS: dict[str, dict[str, object]] = {
    "cohere2": {"layer_norm_eps": 1e-5, "logit_scale": 0.5, "sliding_window": 9},
    "command-r": {"layer_norm_eps": 1e-5, "logit_scale": 0.5},
    "exaone4": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5},
    "gemma": {"hidden_act": "gelu"},
    "gemma2": {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 5,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 7.0,
        "final_logit_softcapping": 3.0,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "deepseek": {**LATER_EXPERTS, "n_routed_experts": 5, "num_experts_per_tok": 2, "scoring_func": "softmax"},
    "deepseek2": {
        "n_routed_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 2,
        "first_k_dense_replace": 1, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 24,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "model_type": "deepseek_v3", "routed_scaling_factor": 2.5,
        "norm_topk_prob": True,
    },
    "dots1": {**LATER_EXPERTS, "n_routed_experts": 5, "num_experts_per_tok": 2, "norm_topk_prob": True},
    "ernie4_5-moe": {
        "moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 2,
        "moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 1,
    },
    "glm4moe": {
        **LATER_EXPERTS, "n_routed_experts": 5, "num_experts_per_tok": 2, "norm_topk_prob": True,
        "partial_rotary_factor": 0.5,
    },
    "hunyuan-moe": {"num_experts": 5, "moe_topk": 2, "intermediate_size": 64, "moe_intermediate_size": 32},
    "minimax-m2": {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 32, "rotary_dim": 8},
    "gemma4": {
        "layer_types": ["full_attention", *["sliding_attention"] * 2, "full_attention"], "sliding_window": 5,
        "num_kv_shared_layers": 2, "head_dim": 16, "global_head_dim": 32, "hidden_size_per_layer_input": 32,
        "num_experts": 5, "top_k_experts": 2, "moe_intermediate_size": 32, "final_logit_softcapping": 3.0,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
    },
    "glm4": {"partial_rotary_factor": 0.5},
    "granite": {
        "attention_multiplier": 0.3,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.4,
        "logits_scaling": 3.0,
    },
    "hunyuan-dense": {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 50.0, "factor": 1.0},
    },
    "mistral3": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
        "sliding_window": 11,
    },
    "olmo2": {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 5,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
    },
    "phi3": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.5,
            "short_factor": [1.0, 1.5, 2.0, 2.5],
            "long_factor": [1.0, 3.0, 5.0, 7.0],
        },
        "original_max_position_embeddings": 16,
        "sliding_window": 9,
    },
    "arcee": {"hidden_act": "relu2"},
    "nemotron": {"hidden_act": "relu2", "norm_eps": 1e-5, "partial_rotary_factor": 0.5},
    "stablelm": {"hidden_act": "silu", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25},
    "starcoder2": {"hidden_act": "gelu_pytorch_tanh", "norm_epsilon": 1e-5, "sliding_window": 9},
    "smollm3": {"no_rope_layers": [1, 1], "no_rope_layer_interval": 4},
    "gemma3": {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 5,
        "query_pre_attn_scalar": 16,
        "final_logit_softcapping": 3.0,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
    },
    "gpt-oss": {
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "intermediate_size": 32,
        "sliding_window": 5,
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 300.0, "factor": 4.0, "original_max_position_embeddings": 16,
            "truncate": False,
        },
    },
    "llama4": {
        "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size_mlp": 64, "intermediate_size": 32,
        "interleave_moe_layer_step": 2, "attention_chunk_size": 7,
    },
    "mixtral": {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 32},
    "olmoe": {"num_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 32, "norm_topk_prob": False},
    "qwen2moe": {
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 64,
        "norm_topk_prob": False,
    },
    "granitehybrid": {
        "conv_kernel": None, "mamba_d_conv": 4, "mamba_d_state": 6, "mamba_n_groups": 2, "mamba_n_heads": 4,
        "mamba_d_head": 16, "layer_types": ["mamba", "attention"], "num_local_experts": 5, "num_experts_per_tok": 2,
        "intermediate_size": 32, "shared_intermediate_size": 64, "residual_multiplier": 0.5,
        "position_embedding_type": "rope",
    },
    "granitemoe": {
        "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 32, "attention_multiplier": 0.3,
        "logits_scaling": 3.0,
    },
    "lfm2": {
        "norm_eps": 1e-6, "conv_L_cache": 3, "full_attn_idxs": [1], "intermediate_size": 60,
        "block_auto_adjust_ff_dim": True, "block_multiple_of": 32, "block_ffn_dim_multiplier": 1.5,
    },
    "lfm2moe": {
        "norm_eps": 1e-6, "conv_L_cache": 3, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1,
        "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    },
    "nemotron_h": NEMOTRON_H,
    "nemotron_h_moe": {
        **NEMOTRON_H, "layers_block_type": ["linear_attention", "full_attention", "moe", "linear_attention"],
        "n_routed_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "moe_shared_expert_intermediate_size": 64, "moe_latent_size": 32, "routed_scaling_factor": 1.5,
    },
    "qwen35": DELTA_NET,
    "qwen35moe": {
        **DELTA_NET, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 64,
    },
    "qwen3next": {
        **DELTA_NET, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 64, "norm_topk_prob": True, "mlp_only_layers": [], "decoder_sparse_step": 1,
    },
    "qwen3moe": {
        "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True,
        "mlp_only_layers": [], "decoder_sparse_step": 1,
    },
}  # fmt: skip


def hf_checkpoint(architecture: str, **config: object) -> Checkpoint:
    """A checkpoint of transformers' names with the random numbers of `random_checkpoint`, taken as they are."""
    ours = _as_joined(architecture, random_checkpoint(architecture, optional=True))
    weights = dict[str, Weight]()
    layers = int(str(ours.metadata[f"{architecture}.block_count"]))
    for key, (name, *_) in ARCHITECTURES[architecture].WEIGHTS.items():
        for i in range(layers if "{}" in key and name else bool(name)):
            full = full_name(name.format(i))
            if (named := full_name(key.format(i))) in ours.weights:
                weights[full] = replace(ours.weights[named], name=full)
    described = {
        "model_type": model_type_of(architecture),
        "num_hidden_layers": layers,
        "max_position_embeddings": DEFAULTS["context_length"],
        "hidden_size": DEFAULTS["embedding_length"],
        "intermediate_size": DEFAULTS["feed_forward_length"],
        "num_attention_heads": DEFAULTS["attention.head_count"],
        "num_key_value_heads": DEFAULTS["attention.head_count_kv"],
        "rms_norm_eps": DEFAULTS["attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": DEFAULTS["rope.freq_base"]},
        "head_dim": None,  # null says as much as nothing
        **CONFIGS.get(architecture, {}),
        **config,
    }
    return Checkpoint(Path("config.json"), described, weights)


def _as_joined(architecture: str, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with weights joined as Hugging Face's files of the architecture join them, by a part's name."""
    table, weights = ARCHITECTURES[architecture].WEIGHTS, dict(checkpoint.weights)
    joined = (
        (("attn_q", "attn_k", "attn_v"), "attn_q"), (("ffn_gate", "ffn_up"), "ffn_up"),
        (("ffn_gate_shexp", "ffn_up_shexp"), "ffn_up_shexp"),
    )  # fmt: skip
    for names, whole in joined:
        for i in range(2):
            parts = [f"blk.{i}.{part}.weight" for part in names]
            rows_of = [table.get(f"blk.{{}}.{part}") for part in names]
            if all(rows_of) and not all(name.hf for name in rows_of if name) and parts[0] in weights:
                rows = np.concatenate([weights[part].decode() for part in parts])
                weights[f"blk.{i}.{whole}.weight"] = Weight.from_values("", rows, "F32")
    if architecture == "qwen3next":  # of each of 2 heads of keys: 8 rows of q and of k, 32 of v and of the gate
        qkv, gate = (weights.pop(f"blk.0.attn_{part}.weight").decode() for part in ("qkv", "gate"))
        each = [part.reshape(2, -1, part.shape[1]) for part in (*np.split(qkv, (16, 32)), gate)]
        rows = np.concatenate(each, axis=1).reshape(-1, gate.shape[1])
        weights["blk.0.ssm_in.weight"] = Weight.from_values("", rows, "F32")
    return checkpoint._replace(weights=weights)


def logits_of(checkpoint: Checkpoint, backend: str = "reference") -> Float32Array:
    program = trace_model(checkpoint, 48)
    with RUNNERS[backend](program, limits_for(program, 48)) as runner:
        return run_text(runner, IDS, [len(IDS)])


def same_bits(a: Float32Array, b: Float32Array) -> None:
    np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_checkpoint_gives_the_logits_of_its_conversion(architecture: str, tmp_path: Path) -> None:
    sayable = {"attention_chunk_size": 8192} if architecture == "llama4" else {}  # GGUF has no key for other chunks
    checkpoint = hf_checkpoint(architecture, **sayable)
    converted = read_gguf(as_gguf(checkpoint, architecture, tmp_path / "m.gguf"))
    names = ("blk.{}.attn_q.bias", "output", "token_embd")
    homes = [
        home_of(architecture, name, optional=True) for name in names if name in ARCHITECTURES[architecture].WEIGHTS
    ]
    assert converted.weights.keys() >= {full_name(home) for home in homes if home is not None}
    same_programs(trace_model(checkpoint, 48), trace_model(converted, 48))
    same_bits(logits_of(checkpoint, "cpu"), logits_of(converted, "cpu"))


def test_what_only_drafts_tokens_is_named() -> None:
    square = np.ones((32, 32), np.float32)
    plain = hf_checkpoint("qwen35")
    assert draft_names(plain) == []
    assert draft_names(with_weights(plain, {"mtp.fc.weight": square})) == ["mtp.fc"]
    later = with_weights(plain, {f"model.layers.{i}.eh_proj.weight": square for i in (2, 3)})
    drafting = later._replace(metadata={**later.metadata, "num_nextn_predict_layers": 1})
    assert draft_names(drafting) == ["model.layers.2.eh_proj"]


def test_queries_and_keys_of_a_llama_have_their_pairs_put_together() -> None:
    """By hand: the same numbers under GGUF's names, permuted by the plain words."""
    checkpoint = hf_checkpoint("llama")
    ours = random_checkpoint("llama", optional=True)
    changed: dict[str, Float32Array | None] = {"rope_freqs.weight": None}
    for name in ours.weights:
        if ".attn_q." in name or ".attn_k." in name:
            values = ours.weights[name].decode()
            order = [head + half + i for head in range(0, len(values), 16) for i in range(8) for half in (0, 8)]
            changed[name] = values[order]
    same_programs(trace_model(checkpoint, 48), trace_model(with_weights(ours, changed), 48))


def test_norms_of_a_gemma_have_one_added() -> None:
    checkpoint = hf_checkpoint("gemma3")
    keys = {
        "attention.sliding_window": 5, "attention.sliding_window_pattern": [True, False], "rope.freq_base": 1e6,
        "rope.scaling.type": "linear", "rope.scaling.factor": 4.0, "rope.freq_base_swa": 300.0,
        "final_logit_softcapping": 3.0,
    }  # fmt: skip
    ours = random_checkpoint("gemma3", keys, optional=True)
    norms = {name: w.decode() + np.float32(1) for name, w in ours.weights.items() if name.endswith("norm.weight")}
    assert len(norms) == 2 * 6 + 1
    same_programs(trace_model(checkpoint, 48), trace_model(with_weights(ours, {**norms}), 48))


def test_the_scale_of_gemmas_queries_is_the_configs() -> None:
    program = trace_model(hf_checkpoint("gemma3", query_pre_attn_scalar=64), 48)
    assert [node.attributes["scale"] for node in program.nodes if node.op.name == "attention"] == [1 / 8] * 2


def test_a_tied_head_is_the_embedding() -> None:
    checkpoint = hf_checkpoint("qwen3")
    without = checkpoint._replace(
        weights={name: w for name, w in checkpoint.weights.items() if not name.startswith("lm_head")}
    )
    tied = checkpoint._replace(metadata={**checkpoint.metadata, "tie_word_embeddings": True})
    same_programs(trace_model(tied, 48), trace_model(without, 48))
    assert (logits_of(checkpoint) != logits_of(without)).any()


def test_buffers_of_a_trained_model_are_left_out() -> None:
    checkpoint = hf_checkpoint("llama")
    more = with_weights(checkpoint, {"model.layers.1.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)})
    same_programs(trace_model(more, 48), trace_model(checkpoint, 48))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.layers.0.self_attn.r_proj.weight", "weight 'model.layers.0.self_attn.r_proj' (of 1) is not part"),
        ("model.layers.2.mlp.up_proj.weight", "weight 'blk.2.ffn_up' (of 1) is not part"),
        ("blk.0.attn_q.weight", "weight 'blk.0.attn_q' (of 1) is not part"),
        ("model.norm", "weight 'model.norm' is there twice, with and without .weight"),
        ("model.{}.x{0}.weight", "weight 'model.{}.x{0}' (of 1) is not part"),
    ],
)
def test_what_the_table_does_not_know_is_named(name: str, message: str) -> None:
    more = with_weights(hf_checkpoint("qwen3"), {name: np.ones((2, 2), np.float32)})
    with pytest.raises(ModelError) as caught:
        trace_model(more, 48)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.norm.weight": None}, "weight output_norm is missing"),
        ({"model.norm.weight": np.ones(33, np.float32)}, "weight output_norm has shape [33], not [32]"),
        ({"model.embed_tokens.weight": None}, "weight token_embd.weight is missing or no matrix"),
    ],
)
def test_what_is_missing_or_misshapen_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        trace_model(with_weights(hf_checkpoint("gemma3"), changes), 48)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "key", "value"),
    [
        ("llama", "hidden_act", "gelu"),
        ("qwen2", "use_sliding_window", True),
        ("gemma3", "hidden_activation", "silu"),
        ("gemma3", "use_bidirectional_attention", True),
        ("qwen3moe", "mlp_only_layers", [1]),
        ("qwen3moe", "decoder_sparse_step", 2),
        ("qwen2moe", "qkv_bias", False),
        ("gpt-oss", "swiglu_limit", 9.0),
        ("olmoe", "clip_qkv", 8.0),
    ],
)
def test_a_config_of_another_model_is_refused(architecture: str, key: str, value: object) -> None:
    with pytest.raises(
        ModelError, match=f"^config.json's {key} is {re.escape(repr(value))}: sotol runs {architecture} with "
    ):
        trace_model(hf_checkpoint(architecture, **{key: value}), 48)


def test_an_unknown_model_type_is_named() -> None:
    with pytest.raises(ModelError, match=r"config\.json: architecture 'bert' is not one that sotol runs: gemma3"):
        trace_model(hf_checkpoint("llama", model_type="bert"), 48)


def test_a_weight_without_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the table has and this model's forward does not ask for."""
    qwen3 = ARCHITECTURES["qwen3"]
    table = {**qwen3.WEIGHTS, "blk.{}.ffn_norm.bias": qwen3.WEIGHTS["blk.{}.ffn_norm"]}
    monkeypatch.setattr(qwen3, "WEIGHTS", table)
    more = with_weights(random_checkpoint("qwen3"), {"blk.1.ffn_norm.bias": np.ones(32, np.float32)})
    with pytest.raises(ModelError, match=r"weight blk\.1\.ffn_norm\.bias \(of 1\) has no use in a model of this"):
        trace_model(more, 48)


def test_layers_may_have_sizes_of_their_own() -> None:
    """A number of heads and a feed-forward width for each; a layer with twice the channels, half of them zeros."""
    keys: dict[str, object] = {"attention.key_length": 16, "attention.head_count_kv": 1}
    plain = random_checkpoint("llama", {**keys, "block_count": 2})
    zeros = {"blk.1.attn_q.weight": 0, "blk.1.attn_output.weight": 1, "blk.1.ffn_gate.weight": 0,
             "blk.1.ffn_up.weight": 0, "blk.1.ffn_down.weight": 1}  # fmt: skip
    wider = {
        name: np.concatenate([x, np.zeros_like(x)], axis=axis)
        for name, axis in zeros.items()
        for x in [plain.weights[name].decode()]
    }
    sizes = {"llama.attention.head_count": [2, 4], "llama.feed_forward_length": [64, 128]}
    changed = with_weights(plain, wider)
    changed = changed._replace(metadata={**changed.metadata, **sizes, "llama.attention.head_count_kv": [1, 1]})
    program = trace_model(changed, 48)
    shapes = [node.shape for node in program.nodes if node.op.name == "attention"]
    assert shapes == [("T", 2, 16), ("T", 4, 16)]
    for backend in RUNNERS:
        np.testing.assert_allclose(logits_of(changed, backend), logits_of(plain, backend), atol=1e-5)
