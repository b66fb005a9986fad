"""Qwen2 is Llama with biases, and with the channels of a pair in two halves; so the two can be held to each other."""

import numpy as np
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.running import limits_for, run_text

from sotol.backends.reference import ReferenceRunner
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.quant import Float32Array

IDS = np.random.default_rng(3).integers(0, 48, 20).tolist()


def logits_of(checkpoint: Checkpoint) -> Float32Array:
    program = trace_model(checkpoint, 32)
    runner = ReferenceRunner(program, limits_for(program, 32), np.float64, np.float64)
    return run_text(runner, IDS, [len(IDS)])


def biases(checkpoint: Checkpoint) -> list[str]:
    return [name for name in checkpoint.weights if name.endswith(".bias")]


def test_without_biases_it_is_a_llama_with_its_channels_in_another_order() -> None:
    qwen = random_checkpoint("qwen2")
    zeros = {name: np.zeros(qwen.weights[name].shape, np.float32) for name in biases(qwen)}
    llama = {name: weight.decode() for name, weight in qwen.weights.items() if name not in zeros}
    for name in llama:
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            llama[name] = llama[name].reshape(-1, 2, 8, 32).swapaxes(1, 2).reshape(-1, 32)
    expected = logits_of(with_weights(random_checkpoint("llama"), llama))
    np.testing.assert_allclose(logits_of(with_weights(qwen, zeros)), expected, atol=1e-11)


def test_each_bias_counts() -> None:
    qwen = random_checkpoint("qwen2")
    plain = logits_of(qwen)
    for name in biases(qwen):
        changed = qwen.weights[name].decode()
        changed[3] += 2
        assert np.abs(logits_of(with_weights(qwen, {name: changed})) - plain).max() > 1e-3, name
