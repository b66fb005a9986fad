"""Qwen3 norms each head of q and k, so their length before that does not matter."""

import numpy as np
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.running import limits_for, run_text

from sotol.backends.reference import ReferenceRunner
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.quant import Float32Array

IDS = np.random.default_rng(4).integers(0, 48, 20).tolist()


def logits_of(checkpoint: Checkpoint) -> Float32Array:
    program = trace_model(checkpoint, 32)
    runner = ReferenceRunner(program, limits_for(program, 32), np.float64, np.float64)
    return run_text(runner, IDS, [len(IDS)])


def test_the_length_of_a_head_before_its_norm_does_not_matter() -> None:
    model = random_checkpoint("qwen3", {"attention.key_length": 32, "attention.layer_norm_rms_epsilon": 1e-30})
    scaled = {name: model.weights[name].decode().copy() for name in ("blk.0.attn_q.weight", "blk.1.attn_k.weight")}
    scaled["blk.0.attn_q.weight"][:32] *= 8  # the first of two heads
    scaled["blk.1.attn_k.weight"] *= 0.5
    np.testing.assert_allclose(logits_of(with_weights(model, scaled)), logits_of(model), atol=1e-9)


def test_the_weights_of_the_norms_count() -> None:
    model = random_checkpoint("qwen3")
    plain = logits_of(model)
    for name in ("blk.0.attn_q_norm.weight", "blk.1.attn_k_norm.weight"):
        changed = with_weights(model, {name: model.weights[name].decode() * 3})
        assert np.abs(logits_of(changed) - plain).max() > 1e-3, name


def test_scores_are_scaled_by_the_width_of_a_head() -> None:
    program = trace_model(random_checkpoint("qwen3", {"attention.key_length": 64}), 32)
    assert [node.attributes["scale"] for node in program.nodes if node.op.name == "attention"] == [1 / 8] * 2
