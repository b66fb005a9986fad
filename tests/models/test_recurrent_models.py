"""Models with recurrent layers: which layers are so, whose weights they have, and what is refused."""

from typing import Any

import numpy as np
import pytest
from tests.models.binding.test_bind import logits_of, same_bits
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.configs import hf_checkpoint

from sotol.backends.cpu.running.lower import missing
from sotol.backends.cpu.running.lowerings import LOWERINGS
from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.program.memory import State
from sotol.program.program import Program

KINDS = {"delta_rule": "delta", "selective_scan": "scan", "attention": "attention", "choose_experts": "experts"}


def changed(checkpoint: Checkpoint, **fields: object) -> Checkpoint:
    """With other metadata, of the same weights; __ is a dot, None takes a key out."""
    name = str(checkpoint.metadata["general.architecture"])
    new = {f"{name}.{key.replace('__', '.')}": value for key, value in fields.items()}
    return checkpoint._replace(metadata={key: x for key, x in {**checkpoint.metadata, **new}.items() if x is not None})


def layers_of(program: Program) -> list[str]:
    """What each layer is made of, of attention, rules and experts; "" of a convolution or a network alone."""
    count = 1 + max(node.layer for node in program.nodes if node.layer is not None)
    found = [""] * count
    for node in program.nodes:
        if node.layer is not None and node.op.name in KINDS:
            found[node.layer] = f"{found[node.layer]} {KINDS[node.op.name]}".strip()
    return found


def test_each_fourth_layer_has_attention_unless_the_file_says_otherwise() -> None:
    keys: dict[str, object] = {"block_count": 8, "full_attention_interval": None}
    assert layers_of(trace_model(random_checkpoint("qwen35", keys), 32)) == [*["delta"] * 3, "attention"] * 2
    keys = {"block_count": 4, "full_attention_interval": 3}
    assert layers_of(trace_model(random_checkpoint("qwen35", keys), 32)) == ["delta", "delta", "attention", "delta"]
    keys = {"block_count": 3, "attention.recurrent_layers": [False, True, False, True]}
    assert layers_of(trace_model(random_checkpoint("qwen35", keys), 32)) == ["attention", "delta", "attention"]


def test_the_kinds_of_a_nemotrons_layers_are_in_its_counts() -> None:
    assert layers_of(trace_model(random_checkpoint("nemotron_h"), 32)) == ["scan", "attention", "", "scan"]
    assert layers_of(trace_model(random_checkpoint("nemotron_h_moe"), 32)) == ["scan", "attention", "experts", "scan"]
    pattern = trace_model(hf_checkpoint("nemotron_h", layers_block_type=None, hybrid_override_pattern="M*-M"), 32)
    assert layers_of(pattern) == ["scan", "attention", "", "scan"]


@pytest.mark.parametrize("said", [["mamba", [[]]], ["mamba", None], ["mamba", {}], "M?", [], 7])
def test_kinds_that_are_none_are_refused(said: object) -> None:
    with pytest.raises(ModelError, match="layers_block_type"):
        trace_model(hf_checkpoint("nemotron_h", layers_block_type=said), 32)


def test_a_layer_of_convolutions_has_no_key_value_heads() -> None:
    keys: dict[str, object] = {"block_count": 3, "attention.head_count_kv": [0, 1, 0]}
    program = trace_model(random_checkpoint("lfm2", keys), 32)
    assert layers_of(program) == ["", "attention", ""]
    assert [cache.layout for cache in program.caches() if isinstance(cache.layout, State)] == [State((2, 32))] * 2


@pytest.mark.parametrize("architecture", ["qwen35", "qwen35moe", "qwen3next"])
def test_states_are_matrices_of_keys_by_values_and_inputs_of_the_convolution(architecture: str) -> None:
    program = trace_model(random_checkpoint(architecture), 32)
    states = [cache for cache in program.caches() if isinstance(cache.layout, State)]
    assert states[0].layout == State((3, 2 * 2 * 8 + 64))
    assert states[1].layout == State((4, 8, 16))
    assert {cache.name for cache in states} == {"convolved.0", "state.0"}


# ---- what is left out


def test_layers_that_draft_tokens_are_left_out() -> None:
    """GGUF counts them among the model's layers; in Hugging Face's checkpoints they have a name of their own."""
    plain = random_checkpoint("qwen35")
    drafts = {f"blk.2.{name}": np.ones((32, 32), np.float32) for name in ("attn_q.weight", "nextn.eh_proj.weight")}
    more = changed(with_weights(plain, {**drafts}), block_count=3, nextn_predict_layers=1)
    same_bits(logits_of(more), logits_of(plain))
    with pytest.raises(ModelError, match=r"weight 'blk\.3\.attn_q' \(of 1\) is not part"):
        trace_model(with_weights(more, {"blk.3.attn_q.weight": np.ones((4, 32), np.float32)}), 32)
    with pytest.raises(ModelError, match="block_count is 3: more than the 3 of nextn_predict_layers are needed"):
        trace_model(changed(more, nextn_predict_layers=3), 32)
    hf = hf_checkpoint("qwen35")
    same_bits(logits_of(with_weights(hf, {"mtp.fc.weight": np.ones((32, 64), np.float32)})), logits_of(hf))


def test_the_names_of_nemotrons_files() -> None:
    ours = hf_checkpoint("nemotron_h")
    weights = {name.replace("model.", "backbone.", 1): weight for name, weight in ours.weights.items()}
    assert "backbone.layers.0.mixer.A_log" in weights
    same_bits(logits_of(ours._replace(weights=weights)), logits_of(ours))
    both = {**ours.weights, "backbone.norm_f.weight": ours.weights["model.norm_f.weight"]}
    with pytest.raises(ModelError, match=r"weight 'model\.norm_f' is there twice, once as 'backbone\.norm_f'"):
        trace_model(ours._replace(weights=both), 32)


# ---- the order of heads


@pytest.mark.parametrize("architecture", ["qwen35", "qwen3next"])
def test_a_value_head_uses_the_key_of_its_group(architecture: str) -> None:
    """Of 4 heads that lie as checkpoints have them, 0 and 1 use the first key: they do not see what the second is."""
    checkpoint = hf_checkpoint(architecture)
    name = "in_proj_qkv" if architecture == "qwen35" else "in_proj_qkvz"
    full = f"model.layers.0.linear_attn.{name}.weight"
    rows = checkpoint.weights[full].decode().copy()
    second_key = slice(16 + 8, 32) if architecture == "qwen35" else slice(80 + 8, 80 + 16)  # of 2 heads of 8
    rows[second_key] *= -3
    norm = checkpoint.weights["model.layers.0.linear_attn.out_proj.weight"].decode()

    def of_heads(kept: slice, weights: dict[str, Any]) -> Any:
        out = np.zeros_like(norm)
        out[:, kept] = norm[:, kept]
        only = {"model.layers.0.linear_attn.out_proj.weight": out, **weights}
        return logits_of(with_weights(checkpoint, only))

    first, second = slice(0, 32), slice(32, 64)
    same_bits(of_heads(first, {full: rows}), of_heads(first, {}))
    assert (of_heads(second, {full: rows}) != of_heads(second, {})).any()


# ---- what is refused


@pytest.mark.parametrize(
    ("architecture", "fields", "message"),
    [
        ("qwen35", {"ssm__group_count": 3}, "ssm.time_step_rank is 4: so many heads of values can't share 3 of keys"),
        ("qwen35", {"ssm__inner_size": 66}, "ssm.inner_size is 66: it is no multiple of 4 heads"),
        ("qwen35", {"ssm__conv_kernel": 1}, "ssm.conv_kernel is '1', not a whole number from 2"),
        ("qwen35", {"ssm__state_size": None}, "ssm.state_size is missing"),
        ("qwen35", {"ssm__state_size": 9}, r"weight blk.0.attn_qkv has shape \[96, 32\], not \[100, 32\]"),
        ("qwen35", {"full_attention_interval": 0}, "full_attention_interval is '0', not a whole number from 1"),
        ("qwen35", {"attention__recurrent_layers": [True]}, "not truth values of 2 layers"),
        ("qwen35", {"attention__recurrent_layers": [True, True]}, r"weight 'blk.1.attn_k' \(of \d+\) is not part"),
        ("qwen35", {"ssm__conv_kernel": 5}, r"weight blk.0.ssm_conv1d has shape \[96, 4\], not \[96, 5\]"),
        ("nemotron_h", {"ssm__group_count": 3}, "ssm.time_step_rank is 4: so many heads can't be 3 equal groups"),
        ("nemotron_h", {"ssm__inner_size": 65}, "ssm.inner_size is 65: it is no multiple of 4 heads"),
        ("nemotron_h", {"attention__head_count_kv": [1, 1, 0, 0]}, r"weight 'blk.0.ssm_a' \(of \d+\) is not part"),
        ("nemotron_h", {"feed_forward_length": [0, 0, 64]}, "a whole number for each of 4 layers"),
        ("nemotron_h_moe", {"moe_latent_size": 0}, r"weight blk.2.ffn_down_exps has shape|no use in a model"),
        ("lfm2", {"shortconv__l_cache": 1}, "shortconv.l_cache is '1', not a whole number from 2"),
        ("lfm2", {"attention__head_count_kv": [1, 1]}, r"weight 'blk.0.shortconv.conv' \(of \d+\) is not part"),
    ],
)
def test_sizes_that_can_not_be_are_named(architecture: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        trace_model(changed(random_checkpoint(architecture), **fields), 32)


@pytest.mark.parametrize(
    ("architecture", "fields", "message"),
    [
        (
            "nemotron_h",
            {"layers_block_type": ["mamba", "attention", "rwkv", "mamba"]},
            "config.json's layers_block_type",
        ),
        ("nemotron_h", {"layers_block_type": 4}, "config.json's layers_block_type is '4'"),
        ("nemotron_h", {"mlp_hidden_act": "silu"}, "config.json's mlp_hidden_act is 'silu'"),
        ("nemotron_h", {"use_bias": True}, "config.json's use_bias is True"),
        ("qwen35", {"hidden_act": "gelu"}, "config.json's hidden_act is 'gelu'"),
        ("lfm2", {"conv_bias": True}, "config.json's conv_bias is True"),
        ("lfm2", {"full_attn_idxs": ["a"]}, "config.json's full_attn_idxs"),
    ],
)
def test_configs_of_other_models_are_refused(architecture: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        trace_model(hf_checkpoint(architecture, **fields), 32)


def test_a_convolution_that_is_too_long_is_named_by_the_backend() -> None:
    program = trace_model(random_checkpoint("lfm2", {"shortconv.l_cache": 9}), 32)
    assert missing(program, LOWERINGS) == [
        "the CPU backend convolves 2 to 8 inputs, all but one in the state: not 9 and 8"
    ]


def test_the_width_of_a_network_that_config_json_means_otherwise() -> None:
    """40 is two thirds of 60, 1.5 times that is 60, and 64 its next multiple of 32: the shape of the weights."""
    program = trace_model(hf_checkpoint("lfm2"), 32)
    assert {node.shape for node in program.nodes if node.op.name == "glu" and node.attributes["act"] == "silu"} == {
        ("T", 64)
    }
