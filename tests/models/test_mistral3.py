"""Mistral 3: queries that grow with the position, and windows by config.json."""

import math

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.configs import hf_checkpoint
from tests.support.tracing import IDS, logits_of, program_of, windows_of

from sotol.errors import ModelError
from sotol.models import trace_model
from sotol.program.program import Constant, Program

GROWING = {"attention__temperature_scale": 0.25, "rope__scaling__original_context_length": 10}


def temperatures(program: Program) -> list[Constant]:
    return [x for n in program.nodes if n.op.name == "scale_by_position" for x in n.inputs if isinstance(x, Constant)]


def test_queries_grow_with_each_span_of_positions() -> None:
    found = temperatures(program_of("mistral3", **GROWING))
    assert len(found) == 2
    expected = [1 + 0.25 * math.log(1 + position // 10) for position in range(32)]
    np.testing.assert_allclose(found[0].value, expected, rtol=1e-7)


def test_the_first_span_has_the_logits_of_a_llama_and_later_ones_have_not() -> None:
    growing, llama = (logits_of(p, IDS) for p in (program_of("mistral3", **GROWING), program_of("llama")))
    np.testing.assert_allclose(growing[:10], llama[:10], atol=1e-12)
    assert (np.abs(growing[10:] - llama[10:]).max(axis=1) > 1e-6).all()


@pytest.mark.parametrize("keys", [{}, {"attention__temperature_scale": 0.0}])
def test_without_growth_it_is_a_llama(keys: dict[str, object]) -> None:
    program = program_of("mistral3", **keys)
    assert temperatures(program) == []
    llama = trace_model(random_checkpoint("llama"), 32)
    np.testing.assert_array_equal(logits_of(program, IDS), logits_of(llama, IDS))


def test_growth_needs_the_length_of_a_span() -> None:
    with pytest.raises(ModelError, match=r"mistral3\.rope\.scaling\.original_context_length is missing"):
        program_of("mistral3", attention__temperature_scale=0.25)


def test_windows_are_those_of_all_layers_unless_the_config_says_which() -> None:
    assert windows_of(trace_model(hf_checkpoint("mistral3"), 32)) == [11, 11]
    assert windows_of(trace_model(hf_checkpoint("mistral3", sliding_window=None), 32)) == [0, 0]
    mixed = hf_checkpoint("mistral3", layer_types=["full_attention", "sliding_attention"])
    assert windows_of(trace_model(mixed, 32)) == [0, 11]


@pytest.mark.parametrize("kind", ["mistral", "ministral", "ministral3"])
def test_all_of_mistrals_configs_are_read_here(kind: str) -> None:
    assert windows_of(trace_model(hf_checkpoint("mistral3", model_type=kind), 32)) == [11, 11]
