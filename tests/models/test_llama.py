"""Llama: Llama 3's divisors reach the rotation, and a text without order is one with positions hidden."""

import numpy as np
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.running import limits_for, run_text

from sotol.backends.reference import ReferenceRunner
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.quant import Float32Array

IDS = np.random.default_rng(6).integers(0, 48, 20).tolist()


def logits_of(checkpoint: Checkpoint, ids: list[int]) -> Float32Array:
    program = trace_model(checkpoint, 32)
    runner = ReferenceRunner(program, limits_for(program, 32), np.float64, np.float64)
    return run_text(runner, ids, [len(ids)])


def test_divisors_of_one_factor_are_a_linear_scaling() -> None:
    divided = with_weights(random_checkpoint("llama"), {"rope_freqs.weight": np.full(8, 4, np.float32)})
    linear = random_checkpoint("llama", {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0})
    plain = random_checkpoint("llama")
    np.testing.assert_allclose(logits_of(divided, IDS), logits_of(linear, IDS), atol=1e-6)
    assert np.abs(logits_of(divided, IDS) - logits_of(plain, IDS)).max() > 1e-3


def test_without_rotation_one_layer_sees_a_set() -> None:
    """Huge divisors hold all angles at 0; then the order of earlier tokens is lost on the last."""
    checkpoint = random_checkpoint("llama", {"block_count": 1})
    still = with_weights(checkpoint, {"rope_freqs.weight": np.full(8, 1e30, np.float32)})
    shuffled = [*reversed(IDS[:-1]), IDS[-1]]
    np.testing.assert_allclose(logits_of(still, shuffled)[-1], logits_of(still, IDS)[-1], atol=1e-11)
    assert np.abs(logits_of(checkpoint, shuffled)[-1] - logits_of(checkpoint, IDS)[-1]).max() > 1e-3
