"""Gemma 4: widths by kind of layer, keys that are values, whose cache a layer reads, the second stream."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.configs import hf_checkpoint
from tests.support.programs import same_programs
from tests.support.tracing import CONTEXT, IDS, attributes, logits_of, program_of

from sotol.errors import ModelError
from sotol.models import trace_model
from sotol.program.memory import Cache, Paged
from sotol.program.program import Constant, Program

LOCAL, GLOBAL = Paged(1, 16, 16, 5), Paged(1, 32, 32)


def read_caches(program: Program) -> list[Cache]:
    """That each layer's attention reads."""
    return [x for node in program.nodes if node.op.name == "attention" for x in node.inputs if isinstance(x, Cache)]


def test_the_last_layers_read_the_caches_of_their_kind() -> None:
    """The default has one that sees everything, two with windows, and one that does; the last two keep nothing."""
    program = program_of("gemma4")
    first, second = Cache("kv.0", GLOBAL), Cache("kv.1", LOCAL)
    assert read_caches(program) == [first, second, second, first]
    assert program.caches() == [first, second]
    assert attributes(program, "attention", "scale") == [1.0] * 4


def test_the_donor_is_the_last_of_its_kind() -> None:
    """Not the last two layers that keep something, as llama.cpp has it."""
    pattern = [False, True, True, True, False]
    program = program_of(
        "gemma4", block_count=5, attention__sliding_window_pattern=pattern, attention__shared_kv_layers=2
    )
    assert [cache.name for cache in read_caches(program)] == ["kv.0", "kv.1", "kv.2", "kv.2", "kv.0"]


def test_a_kind_without_a_donor_is_refused() -> None:
    with pytest.raises(ModelError, match="layer 3 reads the cache of one of its kind: there is none among the first 2"):
        program_of("gemma4", attention__sliding_window_pattern=[True, True, True, False])
    with pytest.raises(ModelError, match="layer 0 reads the cache of one of its kind: there is none among the first"):
        program_of("gemma4", attention__shared_kv_layers=4)


def test_keys_and_values_of_layers_that_read_others_may_be_missing() -> None:
    checkpoint = random_checkpoint("gemma4")
    names = [f"blk.{i}.{part}.weight" for i in (2, 3) for part in ("attn_k", "attn_v", "attn_k_norm")]
    without = with_weights(checkpoint, dict.fromkeys(names))
    same_programs(trace_model(without, CONTEXT), trace_model(checkpoint, CONTEXT))


def test_values_that_are_keys() -> None:
    """Before their norm and rotation: as if the file had the same matrix twice."""
    checkpoint = random_checkpoint("gemma4")
    keys = checkpoint.weights["blk.0.attn_k.weight"].decode()
    twice = with_weights(checkpoint, {"blk.0.attn_v.weight": keys})
    once = with_weights(checkpoint, {"blk.0.attn_v.weight": None})
    want = logits_of(trace_model(twice, CONTEXT), IDS)
    np.testing.assert_array_equal(logits_of(trace_model(once, CONTEXT), IDS), want)
    with pytest.raises(ModelError, match=r"weight blk\.1\.attn_v is missing"):
        trace_model(with_weights(checkpoint, {"blk.1.attn_v.weight": None}), CONTEXT)


def test_pairs_of_wide_heads_that_rotate() -> None:
    """A quarter, by the divisors of a GGUF file; all, without any."""
    for optional, pairs in ((True, 4), (False, 16)):
        program = trace_model(random_checkpoint("gemma4", optional=optional), CONTEXT)
        tables = [node.inputs[2] for node in program.nodes if node.op.name == "rope"]
        assert {x.value.shape for x in tables if isinstance(x, Constant)} == {(CONTEXT, 2, 8), (CONTEXT, 2, pairs)}
    checkpoint = random_checkpoint("gemma4", optional=True)
    for wrong in (np.full(16, 2), np.where(np.arange(16) % 2, 1, 1e30), np.full(16, 1e30)):
        with pytest.raises(ModelError, match="rope_freqs must have ones, and behind them huge numbers"):
            trace_model(with_weights(checkpoint, {"rope_freqs.weight": wrong.astype(np.float32)}), CONTEXT)


def test_frequencies_of_pairs_are_those_of_the_whole_head() -> None:
    program = trace_model(hf_checkpoint("gemma4"), CONTEXT)
    table = next(node.inputs[2] for node in program.nodes if node.op.name == "rope")
    assert isinstance(table, Constant)
    want = np.cos(1e6 ** (-np.arange(4) / 16))
    np.testing.assert_allclose(table.value[1, 0], want, rtol=1e-6)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"head_dim": 15}, "heads of 15 and of 32 channels can't rotate"),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e4, "partial_rotary_factor": 0.05}}},
            "can't rotate, 0 pairs",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e4, "partial_rotary_factor": 2.0}}},
            "can't rotate, 32 pairs",
        ),
    ],
)
def test_heads_that_can_not_rotate_so(keys: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        trace_model(hf_checkpoint("gemma4", **keys), CONTEXT)


def test_a_layers_own_embedding_counts_in_that_layer() -> None:
    checkpoint = random_checkpoint("gemma4", {"block_count": 1, "attention.shared_kv_layers": 0})
    table = checkpoint.weights["per_layer_token_embd.weight"].decode()
    before = logits_of(trace_model(checkpoint, CONTEXT), IDS)
    changed = table.copy()
    changed[IDS[-1]] += 1
    after = logits_of(trace_model(with_weights(checkpoint, {"per_layer_token_embd.weight": changed}), CONTEXT), IDS)
    moved = np.flatnonzero(np.abs(after - before).max(axis=1) > 1e-6).tolist()
    assert moved == [i for i, token in enumerate(IDS) if token == IDS[-1]]


def test_a_layers_scale_multiplies_the_stream() -> None:
    checkpoint = random_checkpoint("gemma4")
    plain = logits_of(trace_model(checkpoint, CONTEXT), IDS)
    ones = {f"blk.{i}.layer_output_scale.weight": np.ones(1, np.float32) for i in range(4)}
    np.testing.assert_array_equal(logits_of(trace_model(with_weights(checkpoint, {**ones}), CONTEXT), IDS), plain)
    other = {**ones, "blk.0.layer_output_scale.weight": np.full(1, 0.3, np.float32)}
    moved = logits_of(trace_model(with_weights(checkpoint, {**other}), CONTEXT), IDS)
    assert np.abs(moved - plain).max() > 1e-3


def test_the_numbers_of_experts_multiply_their_results() -> None:
    checkpoint = random_checkpoint("gemma4")
    name = "blk.1.ffn_down_exps"
    scales, down = (checkpoint.weights[f"{name}.{part}"].decode() for part in ("scale", "weight"))
    folded = {f"{name}.scale": np.ones_like(scales), f"{name}.weight": down * scales[:, None, None]}
    want = logits_of(trace_model(checkpoint, CONTEXT), IDS)
    np.testing.assert_allclose(
        logits_of(trace_model(with_weights(checkpoint, {**folded}), CONTEXT), IDS), want, atol=1e-6
    )


@pytest.mark.parametrize(
    "config",
    [
        {"attention_k_eq_v": True, "num_global_key_value_heads": 2, "global_head_dim": 16},
        {
            "global_head_dim": None,
            "per_layer_config": {"0": {"head_dim": 16}, "3": {"head_dim": 16, "num_key_value_heads": 2}},
        },
    ],
)
def test_a_config_says_what_layers_that_see_everything_have(config: dict[str, object]) -> None:
    """Two heads of 16 channels where the default has one of 32, so the weights are as large; queries are not."""
    checkpoint = hf_checkpoint("gemma4", **config)
    changes = {
        f"model.layers.{i}.self_attn.{name}.weight": values
        for i in (0, 3)
        for name, values in (
            ("q_proj", np.ones((32, 32), np.float32)), ("o_proj", np.ones((32, 32), np.float32)),
            ("q_norm", np.ones(16, np.float32)), ("k_norm", np.ones(16, np.float32)),
        )
    }  # fmt: skip
    changes |= {f"model.layers.{i}.self_attn.q_proj.bias": np.ones(32, np.float32) for i in (0, 3)}
    program = trace_model(with_weights(checkpoint, {**changes}), CONTEXT)
    assert read_caches(program)[0].layout == Paged(2, 16, 16)


def test_the_width_is_double_in_layers_that_keep_nothing() -> None:
    with pytest.raises(ModelError, match=r"weight blk\.2\.ffn_gate has shape \[64, 32\], not \[128, 32\]"):
        trace_model(hf_checkpoint("gemma4", use_double_wide_mlp=True), CONTEXT)


@pytest.mark.parametrize(("key", "value"), [("hidden_activation", "gelu"), ("use_bidirectional_attention", "all")])
def test_configs_of_other_models_are_refused(key: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"^config\.json's {key} is {value!r}: sotol runs gemma4 with "):
        trace_model(hf_checkpoint("gemma4", **{key: value}), CONTEXT)
