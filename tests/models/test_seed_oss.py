"""Seed-OSS is Qwen2 by another name of a norm, with biases that may be missing."""

import numpy as np
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.tracing import IDS, logits_of

from sotol.models import trace_model


def test_with_qwens_biases_it_is_a_qwen2() -> None:
    qwen = random_checkpoint("qwen2")
    named = {name.replace("ffn_norm", "post_attention_norm"): w.decode() for name, w in qwen.weights.items()}
    seed = with_weights(random_checkpoint("seed_oss"), {**named})
    one, other = (logits_of(trace_model(c, 32), IDS) for c in (seed, qwen))
    np.testing.assert_array_equal(one, other)
