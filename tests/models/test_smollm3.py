"""SmolLM3: which layers rotate."""

import pytest
from tests.support.configs import hf_checkpoint
from tests.support.tracing import program_of, tables_by_layer

from sotol.errors import ModelError
from sotol.models import trace_model


def test_each_fourth_layer_does_not_rotate() -> None:
    assert list(tables_by_layer(program_of("smollm3", block_count=9))) == [0, 1, 2, 4, 5, 6, 8]


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        ({"no_rope_layers": [0, 1]}, [1]),
        ({"no_rope_layers": [1, 0]}, [0]),
        ({"no_rope_layers": [0, 0]}, []),
        ({"no_rope_layers": None, "no_rope_layer_interval": 2}, [0]),
        ({"no_rope_layers": None, "no_rope_layer_interval": 3}, [0, 1]),
    ],
)
def test_a_config_says_which(config: dict[str, object], layers: list[int]) -> None:
    assert list(tables_by_layer(trace_model(hf_checkpoint("smollm3", **config), 32))) == layers


def test_a_list_that_is_too_short_is_named() -> None:
    with pytest.raises(ModelError, match=r"^config\.json's no_rope_layers is '\[1\]', not truth values of 2 layers"):
        trace_model(hf_checkpoint("smollm3", no_rope_layers=[1]), 32)
