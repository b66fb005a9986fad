"""Checkpoints with Hugging Face's names: the same program over the same numbers as their conversions to GGUF."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.checkpoints import full_name, home_of, random_checkpoint, with_weights
from tests.support.configs import hf_checkpoint
from tests.support.converting import as_gguf
from tests.support.programs import same_programs
from tests.support.running import RUNNERS, limits_for, run_text

from sotol.errors import ModelError
from sotol.formats import read_gguf
from sotol.formats.weights import Checkpoint
from sotol.models import ARCHITECTURES, trace_model
from sotol.models.binding.drafts import draft_names
from sotol.quant import Float32Array

IDS = np.random.default_rng(6).integers(0, 48, 20).tolist()


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
    older = with_weights(plain, {"backbone.layers.2.eh_proj.weight": square})._replace(metadata=drafting.metadata)
    assert draft_names(older) == ["backbone.layers.2.eh_proj"]


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
