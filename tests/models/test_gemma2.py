"""Gemma 2: every other layer has a window; what files that lack a key mean, and configs that say null."""

import numpy as np
import pytest
from tests.support.configs import hf_checkpoint
from tests.support.tracing import IDS, attributes, logits_of, program_of, tables_by_layer, windows_of

from sotol.errors import ModelError
from sotol.models import trace_model


def test_every_other_layer_has_a_window_and_all_rotate_alike() -> None:
    program = program_of("gemma2", block_count=5, attention__sliding_window=9)
    assert windows_of(program) == [9, 0, 9, 0, 9]
    tables = list(tables_by_layer(program).values())
    assert len(tables) == 5
    assert all(table is tables[0] for table in tables)


def test_what_a_file_without_keys_means() -> None:
    program = program_of("gemma2")
    assert windows_of(program) == [4096, 0]
    assert attributes(program, "attention", "cap") == [50.0] * 2
    assert attributes(program, "soft_cap", "cap") == [30.0]


def test_null_in_a_config_is_none() -> None:
    nothing = dict.fromkeys(("sliding_window", "attn_logit_softcapping", "final_logit_softcapping"))
    program = trace_model(hf_checkpoint("gemma2", **nothing), 32)
    assert windows_of(program) == [0, 0]
    assert attributes(program, "attention", "cap") == [0.0] * 2
    assert attributes(program, "soft_cap", "cap") == []


def test_the_scale_of_queries() -> None:
    assert attributes(program_of("gemma2", attention__key_length=64), "attention", "scale") == [1 / 8] * 2
    as_27b = program_of("gemma2", attention__key_length=64, block_count=46)
    assert attributes(as_27b, "attention", "scale") == [16**-0.5] * 46  # the width per head: 32 / 2
    given = trace_model(hf_checkpoint("gemma2", query_pre_attn_scalar=64), 32)
    assert attributes(given, "attention", "scale") == [1 / 8] * 2


def test_caps_hold() -> None:
    plain = program_of("gemma2", final_logit_softcapping=0.0, attn_logit_softcapping=0.0)
    capped = program_of("gemma2", final_logit_softcapping=0.25, attn_logit_softcapping=0.0)
    assert np.abs(logits_of(plain, IDS)).max() > 0.25
    assert np.abs(logits_of(capped, IDS)).max() <= 0.25


@pytest.mark.parametrize(("key", "value"), [("hidden_activation", "gelu"), ("use_bidirectional_attention", True)])
def test_configs_of_other_models_are_refused(key: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"^config\.json's {key} is {value!r}: sotol runs gemma2 with "):
        trace_model(hf_checkpoint("gemma2", **{key: value}), 32)
