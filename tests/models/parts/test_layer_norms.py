"""Nemotron, StableLM and StarCoder2: what layer norms ignore, what rotates, and which windows there are."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.configs import hf_checkpoint
from tests.support.tracing import IDS, attributes, logits_of, program_of, tables_by_layer, windows_of

from sotol.errors import ModelError
from sotol.models import trace_model

ALL = ["nemotron", "stablelm", "starcoder2"]


@pytest.mark.parametrize("architecture", ALL)
def test_what_all_channels_of_an_embedding_share_does_not_matter(architecture: str) -> None:
    """It stays in the sum of all blocks, and every layer norm takes it out."""
    model = random_checkpoint(architecture, optional=True)
    lifted = with_weights(model, {"token_embd.weight": model.weights["token_embd.weight"].decode() + np.float32(2)})
    plain, same = (logits_of(trace_model(c, 32), IDS) for c in (model, lifted))
    np.testing.assert_allclose(same, plain, atol=1e-5)


@pytest.mark.parametrize("architecture", ALL)
@pytest.mark.parametrize("name", ["output_norm.bias", "blk.0.attn_norm.bias", "blk.1.ffn_norm.bias"])
def test_biases_of_norms_count(architecture: str, name: str) -> None:
    model = random_checkpoint(architecture)
    changed = with_weights(model, {name: model.weights[name].decode() * np.linspace(-2, 2, 32, dtype=np.float32)})
    one, other = (logits_of(trace_model(c, 32), IDS) for c in (model, changed))
    assert np.abs(one - other).max() > 1e-3


def test_networks_and_their_activations() -> None:
    assert attributes(program_of("nemotron"), "activate", "act") == ["relu2"] * 2
    assert attributes(program_of("starcoder2"), "activate", "act") == ["gelu_tanh"] * 2
    assert attributes(program_of("stablelm"), "glu", "act") == ["silu"] * 2


@pytest.mark.parametrize(("architecture", "pairs"), [("nemotron", 4), ("stablelm", 2), ("starcoder2", 8)])
def test_a_share_of_each_head_rotates(architecture: str, pairs: int) -> None:
    tables = tables_by_layer(trace_model(hf_checkpoint(architecture), 32))
    assert [table.shape for table in tables.values()] == [(32, 2, pairs)] * 2


def test_starcoders_windows_are_those_of_all_layers() -> None:
    assert windows_of(trace_model(hf_checkpoint("starcoder2"), 32)) == [9, 9]
    assert windows_of(trace_model(hf_checkpoint("starcoder2", sliding_window=None), 32)) == [0, 0]


@pytest.mark.parametrize(
    ("architecture", "key", "value"),
    [
        ("nemotron", "hidden_act", "silu"),
        ("stablelm", "hidden_act", "gelu"),
        ("stablelm", "qk_layernorm", True),
        ("stablelm", "use_parallel_residual", True),
        ("starcoder2", "hidden_act", "gelu"),
    ],
)
def test_configs_of_other_models_are_refused(architecture: str, key: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"^config\.json's {key} is {value!r}: sotol runs {architecture} with "):
        trace_model(hf_checkpoint(architecture, **{key: value}), 32)


def test_an_epsilon_that_is_missing_is_named() -> None:
    with pytest.raises(ModelError, match=r"metadata stablelm\.attention\.layer_norm_epsilon is missing"):
        program_of("stablelm", attention__layer_norm_epsilon=None)
