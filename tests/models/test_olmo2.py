"""OLMo 2 and 3: one norm over all heads, norms after the blocks, and what windowed layers do otherwise."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.configs import hf_checkpoint
from tests.support.tracing import IDS, logits_of, program_of, tables_by_layer, windows_of

from sotol.errors import ModelError
from sotol.models import trace_model

TINY = {"attention.layer_norm_rms_epsilon": 1e-30}


def test_the_length_of_all_queries_does_not_matter_and_that_of_one_head_does() -> None:
    model = random_checkpoint("olmo2", TINY)
    plain, queries = logits_of(trace_model(model, 32), IDS), model.weights["blk.0.attn_q.weight"].decode()
    longer, one = 8 * queries, queries.copy()
    one[:16] *= 8  # the first of two heads
    same, other = (
        logits_of(trace_model(with_weights(model, {"blk.0.attn_q.weight": w}), 32), IDS) for w in (longer, one)
    )
    np.testing.assert_allclose(same, plain, atol=1e-9)
    assert np.abs(other - plain).max() > 1e-3


def test_the_length_of_what_a_block_adds_does_not_matter() -> None:
    model = random_checkpoint("olmo2", TINY)
    longer = {name: 8 * model.weights[name].decode() for name in ("blk.0.attn_output.weight", "blk.1.ffn_down.weight")}
    plain, same = (logits_of(trace_model(c, 32), IDS) for c in (model, with_weights(model, {**longer})))
    np.testing.assert_allclose(same, plain, atol=1e-9)


def test_windowed_layers_rotate_without_yarn() -> None:
    keys = {"rope__scaling__type": "yarn", "rope__scaling__factor": 8.0, "rope__scaling__original_context_length": 16}
    program = program_of("olmo2", block_count=5, attention__sliding_window=6, **keys)
    assert windows_of(program) == [6, 6, 6, 0, 6]
    names = [table.name for table in tables_by_layer(program).values()]
    assert names == ["rope_local", "rope_local", "rope_local", "rope", "rope_local"]
    local, full = tables_by_layer(program)[0], tables_by_layer(program)[3]
    plain = tables_by_layer(program_of("olmo2"))[0]
    np.testing.assert_array_equal(local.value, plain.value)
    assert (full.value != plain.value).any()


def test_an_olmo_2_has_no_windows() -> None:
    assert windows_of(program_of("olmo2", block_count=5)) == [0] * 5


def test_a_scaling_of_windowed_layers_is_refused() -> None:
    both = {"full_attention": {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e4, "rope_type": "yarn"}}
    with pytest.raises(ModelError, match=r"sliding_attention\.rope_type is 'yarn': sotol runs olmo2 with 'default'"):
        trace_model(hf_checkpoint("olmo2", rope_parameters=both), 32)
