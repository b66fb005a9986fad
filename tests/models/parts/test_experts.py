"""What files say of experts; that each expert's weights and each choice count; files of llama with experts."""

from typing import Any

import numpy as np
import pytest
from tests.support.checkpoints import full_name, random_checkpoint, with_weights
from tests.support.running import limits_for, run_text

from sotol.backends.reference import ReferenceRunner
from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.models.binding.metadata import Metadata
from sotol.models.parts.experts import Experts, read_experts
from sotol.program.program import Program
from sotol.quant import Float32Array

IDS = np.random.default_rng(4).integers(0, 48, 20).tolist()
MIXTURES = ["deepseek2", "gpt-oss", "llama4", "mixtral", "olmoe", "qwen2moe", "qwen3moe"]


def logits_of(checkpoint: Checkpoint) -> Float32Array:
    program = trace_model(checkpoint, 32)
    runner = ReferenceRunner(program, limits_for(program, 32), np.float64, np.float64)
    return run_text(runner, IDS, [len(IDS)])


def choices_of(program: Program) -> list[dict[str, Any]]:
    return [dict(node.attributes) for node in program.nodes if node.op.name == "choose_experts"]


def read(**values: object) -> Experts:
    known = {"expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 32, **values}
    return read_experts(Metadata({f"a.{key}": value for key, value in known.items()}, "a"), normalised=False)


def test_what_a_file_says_of_experts() -> None:
    assert read() == Experts(8, 2, 32, "softmax", normalised=False)
    told = read(
        expert_weights_norm=True, expert_weights_scale=2.5, expert_gating_func=2, expert_group_count=4,
        expert_group_used_count=2,
    )  # fmt: skip
    assert told == Experts(8, 2, 32, "sigmoid", normalised=True, factor=2.5, groups=4, groups_used=2)
    assert read(expert_weights_scale=0.0).factor == 1.0
    assert read(expert_gating_func=3).scores == "chosen"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"expert_count": 0}, "metadata a.expert_count is '0', not a whole number from 1"),
        ({"expert_count": None}, "metadata a.expert_count is missing"),
        ({"expert_used_count": 9}, "expert_used_count is 9: a token can choose among 8"),
        ({"expert_used_count": 0}, "metadata a.expert_used_count is '0'"),
        ({"expert_group_count": 3}, "3 of 3 groups of 8 experts: groups must be equal"),
        ({"expert_group_count": 4, "expert_group_used_count": 5}, "5 of 4 groups of 8 experts"),
        ({"expert_group_count": 8, "expert_group_used_count": 1}, "expert_used_count is 2: a token can choose among 1"),
        ({"expert_gating_func": 4}, "expert_gating_func is 4: sotol has 1, 2, 3"),
        ({"expert_weights_norm": 1}, "metadata a.expert_weights_norm is '1', not true or false"),
        ({"expert_weights_scale": -1.0}, "metadata a.expert_weights_scale is '-1.0', not a positive number"),
        ({"expert_feed_forward_length": None}, "metadata a.expert_feed_forward_length is missing"),
    ],
)
def test_what_can_not_be(values: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(**values)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("architecture", MIXTURES)
def test_more_experts_than_the_weights_have(architecture: str) -> None:
    checkpoint = random_checkpoint(architecture)
    wrong = {**checkpoint.metadata, f"{architecture}.expert_count": 6}
    with pytest.raises(ModelError, match=r"has shape \[5, 32\], not \[6, 32\]$"):
        trace_model(checkpoint._replace(metadata=wrong), 32)


@pytest.mark.parametrize("architecture", MIXTURES)
@pytest.mark.parametrize("part", ["gate", "up", "down"])
def test_every_expert_counts(architecture: str, part: str) -> None:
    """The text is long enough for each to be chosen, and with these numbers none is by all tokens."""
    checkpoint = random_checkpoint(architecture, seed=8)
    before, name = logits_of(checkpoint), full_name(f"blk.1.ffn_{part}_exps")
    for expert in range(5):
        values = checkpoint.weights[name].decode().copy()
        values[expert] *= 0.5
        changed = logits_of(with_weights(checkpoint, {name: values}))
        moved = np.abs(changed - before).max(axis=1) > 1e-6
        assert 0 < moved.sum() < len(IDS)  # the tokens that take it, and no others


@pytest.mark.parametrize("architecture", ["mixtral", "qwen3moe"])
def test_equal_experts_are_a_feed_forward_network(architecture: str) -> None:
    """Whoever is chosen: their weights sum to one."""
    dense = {"mixtral": "llama", "qwen3moe": "qwen3"}[architecture]
    plain = random_checkpoint(dense, {"feed_forward_length": 32})
    router = random_checkpoint(architecture)
    same: dict[str, Float32Array | None] = {}
    for name, weight in plain.weights.items():
        if name.endswith(("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")):
            same[name] = None
            same[name.replace(".weight", "_exps.weight")] = np.repeat(weight.decode()[None], 5, axis=0)
        elif name.endswith("attn_norm.weight"):
            gate = name.replace("attn_norm", "ffn_gate_inp")
            same[gate] = router.weights[gate].decode()
    mixed = with_weights(plain, same)._replace(metadata=router.metadata)
    np.testing.assert_allclose(logits_of(mixed), logits_of(plain), atol=1e-12)


def test_a_llama_with_experts_is_a_mixtral() -> None:
    mixtral = random_checkpoint("mixtral")
    fields = {key.replace("mixtral.", "llama."): value for key, value in mixtral.metadata.items()}
    llama = mixtral._replace(metadata={**fields, "general.architecture": "llama"})
    np.testing.assert_array_equal(logits_of(llama), logits_of(mixtral))
    without = {key: value for key, value in llama.metadata.items() if key != "llama.expert_feed_forward_length"}
    wide = {"llama.feed_forward_length": 32}  # as most files have it
    np.testing.assert_array_equal(logits_of(llama._replace(metadata={**without, **wide})), logits_of(mixtral))


def test_a_llama_of_no_experts_is_dense() -> None:
    plain = random_checkpoint("llama")
    told = plain._replace(metadata={**plain.metadata, "llama.expert_count": 0})
    np.testing.assert_array_equal(logits_of(told), logits_of(plain))


@pytest.mark.parametrize(
    ("architecture", "normalised", "scores"),
    [("qwen3moe", True, "softmax"), ("qwen2moe", False, "softmax"), ("mixtral", True, "softmax"),
     ("gpt-oss", False, "chosen"), ("olmoe", False, "softmax")],
)  # fmt: skip
def test_gguf_has_no_flag_for_what_all_models_do(architecture: str, normalised: bool, scores: str) -> None:
    (first, second) = choices_of(trace_model(random_checkpoint(architecture), 32))
    assert first == second
    assert (first["normalised"], first["scores"], first["k"]) == (normalised, scores, 2)


def test_the_sinks_of_a_gpt_oss_count_in_their_heads() -> None:
    checkpoint = random_checkpoint("gpt-oss")
    name = "blk.0.attn_sinks.weight"
    values = checkpoint.weights[name].decode().copy()
    before = logits_of(checkpoint)
    deaf = with_weights(checkpoint, {name: values + 100})  # all weight is the sinks': nothing of the values is left
    silent = {"blk.0.attn_output.weight": np.zeros((32, 32), np.float32)}
    np.testing.assert_allclose(logits_of(deaf), logits_of(with_weights(checkpoint, silent)), atol=1e-9)
    values[1] += 1
    assert np.abs(logits_of(with_weights(checkpoint, {name: values})) - before).max() > 1e-4


def test_windows_of_a_gpt_oss_are_in_every_other_layer() -> None:
    program = trace_model(random_checkpoint("gpt-oss", {"block_count": 4}), 32)
    windows = [cache.layout.window for cache in program.caches()]  # type: ignore[union-attr]
    assert windows == [5, 0, 5, 0]


def test_the_ramp_of_a_gpt_oss_is_not_rounded() -> None:
    """As OpenAI's code has it, and config.json says; GGUF has no key."""
    yarn = {
        "rope.scaling.type": "yarn", "rope.scaling.factor": 32.0, "rope.scaling.original_context_length": 64,
        "attention.key_length": 64,
    }  # fmt: skip
    tables = []
    for architecture in ("gpt-oss", "qwen3"):
        program = trace_model(random_checkpoint(architecture, yarn), 32)
        tables.append(next(x.value for node in program.nodes if node.op.name == "rope" for x in node.inputs[2:]))  # type: ignore[union-attr]
    assert tables[0].shape == tables[1].shape
    moved = np.abs(tables[0] - tables[1]).max(axis=(0, 1))
    assert 0 < (moved > 1e-3).sum() < len(moved) / 2  # the pairs of the ramp
