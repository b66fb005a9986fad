"""Phi-3: which of LongRoPE's divisors a context means, where they come from, and what is wrong with them."""

import math
from typing import Any

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.configs import CONFIGS, hf_checkpoint
from tests.support.tracing import program_of, tables_by_layer, windows_of

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.program.program import Constant
from sotol.quant import Float32Array

SHORT, LONG = np.linspace(1, 2, 8).astype(np.float32), np.linspace(1, 9, 8).astype(np.float32)
KEYS: dict[str, object] = {"rope.scaling.original_context_length": 16, "context_length": 64}


def checkpoint_with(keys: dict[str, object] = KEYS, **weights: Float32Array) -> Checkpoint:
    factors = {"rope_factors_short": SHORT, "rope_factors_long": LONG, **weights}
    return with_weights(random_checkpoint("phi3", keys), {f"{name}.weight": x for name, x in factors.items()})


def table_of(checkpoint: Checkpoint, context: int) -> Constant:
    return tables_by_layer(trace_model(checkpoint, context))[1]


def expected(divisors: Float32Array, context: int, size: float) -> Float32Array:
    angle = np.outer(np.arange(context), 10000.0 ** -(np.arange(8) / 8) / divisors)
    return (size * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)


@pytest.mark.parametrize(("context", "divisors"), [(15, SHORT), (16, SHORT), (17, LONG), (64, LONG)])
def test_the_context_that_a_model_is_loaded_for_chooses_the_divisors(context: int, divisors: Float32Array) -> None:
    size = math.sqrt(1 + math.log(4) / math.log(16))  # the paper's: of a context four times as long
    table = table_of(checkpoint_with(), context)
    np.testing.assert_allclose(table.value, expected(divisors, context, size), atol=1e-6)


def test_a_given_factor_of_cosines_is_taken() -> None:
    table = table_of(checkpoint_with({**KEYS, "rope.scaling.attn_factor": 1.5}), 16)
    np.testing.assert_allclose(table.value, expected(SHORT, 16, 1.5), atol=1e-6)
    no_longer = table_of(checkpoint_with({"context_length": 64}), 64)  # the original context is the context
    np.testing.assert_allclose(no_longer.value, expected(SHORT, 64, 1.0), atol=1e-6)


def test_configs_have_the_divisors() -> None:
    config: Any = CONFIGS["phi3"]["rope_parameters"]
    old = {
        key: value for key, value in config.items() if key not in ("rope_type", "rope_theta", "partial_rotary_factor")
    }
    checkpoint = hf_checkpoint(
        "phi3", rope_parameters=None, rope_scaling={**old, "type": "su"}, rope_theta=1e4, partial_rotary_factor=0.5
    )
    for context in (16, 17):
        np.testing.assert_array_equal(
            table_of(checkpoint, context).value, table_of(hf_checkpoint("phi3"), context).value
        )


def test_without_divisors_it_is_plain() -> None:
    table = tables_by_layer(program_of("phi3"))[0]
    np.testing.assert_allclose(table.value, expected(np.ones(8, np.float32), 32, 1.0), atol=1e-6)


def test_the_window_is_that_of_all_layers() -> None:
    assert windows_of(program_of("phi3", attention__sliding_window=7)) == [7, 7]
    assert windows_of(program_of("phi3", attention__sliding_window=0)) == [0, 0]


def test_what_is_wrong_with_divisors_is_named() -> None:
    with pytest.raises(ModelError, match=r"weight rope_factors_short is missing$"):
        trace_model(random_checkpoint("phi3", {**KEYS, "rope.scaling.type": "longrope"}), 32)
    one = with_weights(checkpoint_with(), {"rope_factors_short.weight": None})
    with pytest.raises(ModelError, match=r"weight rope_factors_short is missing$"):
        trace_model(one, 32)
    for wrong in ([1.0], [1.0, 2.0, 3.0, 0.0], [1.0, 2.0, 3.0, "4"], 5):
        config: Any = {**CONFIGS["phi3"]["rope_parameters"], "long_factor": wrong}  # type: ignore[dict-item]
        with pytest.raises(
            ModelError, match=r"^config\.json's rope_parameters\.long_factor is .*not 4 positive numbers"
        ):
            trace_model(hf_checkpoint("phi3", rope_parameters=config), 32)
    with pytest.raises(ModelError, match="rope: the file's scaling of RoPE turns a pair by more than 8 radians"):
        trace_model(checkpoint_with(rope_factors_long=np.zeros(8, np.float32)), 32)
