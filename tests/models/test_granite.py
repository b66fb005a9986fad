"""Granite: where its factors act; without RoPE, the order of earlier tokens is lost on the last."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.tracing import IDS, attributes, logits_of, program_of, tables_by_layer

from sotol.models import trace_model


def test_without_factors_it_is_a_llama() -> None:
    llama = trace_model(random_checkpoint("llama"), 32)
    np.testing.assert_allclose(logits_of(program_of("granite"), IDS), logits_of(llama, IDS), atol=1e-12)


def test_logits_are_divided() -> None:
    scaled = logits_of(program_of("granite", logit_scale=8.0), IDS)
    np.testing.assert_allclose(8 * scaled, logits_of(program_of("granite"), IDS), atol=1e-12)


def test_where_factors_act() -> None:
    keys = {"attention__scale": 0.5, "embedding_scale": 12.0, "residual_scale": 0.25, "logit_scale": 4.0}
    program = program_of("granite", **keys)
    assert attributes(program, "attention", "scale") == [0.5] * 2
    assert attributes(program, "scale", "factor") == [12.0, *[0.25] * 4, 0.25]


@pytest.mark.parametrize("key", ["attention__scale", "embedding_scale", "residual_scale", "logit_scale"])
def test_each_factor_counts(key: str) -> None:
    changed = logits_of(program_of("granite", **{key: 0.3}), IDS)
    assert np.abs(changed - logits_of(program_of("granite"), IDS)).max() > 1e-3


def test_a_file_may_say_that_nothing_rotates() -> None:
    plain, still = (
        program_of("granite", block_count=1, rope__scaling__finetuned=flag, attention__scale=2.0)
        for flag in (True, False)
    )
    assert (list(tables_by_layer(plain)), list(tables_by_layer(still))) == ([0], [])
    shuffled = [*reversed(IDS[:-1]), IDS[-1]]
    np.testing.assert_allclose(logits_of(still, shuffled)[-1], logits_of(still, IDS)[-1], atol=1e-11)
    assert np.abs(logits_of(plain, shuffled)[-1] - logits_of(plain, IDS)[-1]).max() > 1e-3
