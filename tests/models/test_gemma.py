"""Gemma, the first: scaled embeddings, GELU, and what its configs call it."""

import pytest
from tests.support.configs import hf_checkpoint
from tests.support.tracing import attributes, program_of, tables_by_layer, windows_of

from sotol.errors import ModelError
from sotol.models import trace_model


def test_embeddings_are_scaled_by_the_root_of_the_width() -> None:
    program = program_of("gemma")
    assert attributes(program, "scale", "factor") == [32**0.5]
    assert attributes(program, "glu", "act") == ["gelu_tanh"] * 2
    assert windows_of(program) == [0, 0]
    assert list(tables_by_layer(program)) == [0, 1]


@pytest.mark.parametrize("act", [{"hidden_act": "gelu"}, {"hidden_act": "gelu_pytorch_tanh"}, {"hidden_act": None}])
def test_what_the_first_releases_call_their_gelu_is_known(act: dict[str, object]) -> None:
    trace_model(hf_checkpoint("gemma", **act), 32)


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_act", "silu"), ("hidden_activation", "relu"), ("use_bidirectional_attention", True)]
)
def test_configs_of_other_models_are_refused(key: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"^config\.json's {key} is {value!r}: sotol runs gemma with "):
        trace_model(hf_checkpoint("gemma", **{key: value}), 32)
