"""Falcon-H1: factors of the activations, which GGUF's weights have in them; and where the norm is."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.configs import hf_checkpoint
from tests.support.tracing import CONTEXT, IDS, attributes, logits_of

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model
from sotol.program.memory import Paged, State
from sotol.quant import Float32Array
from sotol.tools.gguf_names import with_gguf_names, without_factors
from sotol.tools.same_programs import check_same_model

FACTORS: dict[str, object] = {
    "embedding_multiplier": 3.0, "lm_head_multiplier": 0.5, "attention_in_multiplier": 0.7, "key_multiplier": 0.3,
    "attention_out_multiplier": 0.6, "ssm_in_multiplier": 1.25, "ssm_out_multiplier": 0.5,
    "ssm_multipliers": [0.8, 0.9, 1.3, 0.7, 1.1], "mlp_multipliers": [0.9, 0.4],
}  # fmt: skip


def logits(checkpoint: Checkpoint) -> Float32Array:
    return logits_of(trace_model(checkpoint, CONTEXT), IDS)


def test_each_layer_keeps_keys_and_values_and_a_state() -> None:
    program = trace_model(random_checkpoint("falcon-h1"), CONTEXT)
    kinds = [type(cache.layout) for cache in program.caches() if cache.name.endswith(".1")]
    assert sorted(kind.__name__ for kind in kinds) == [Paged.__name__, State.__name__, State.__name__]


@pytest.mark.parametrize("tied", [True, False])
def test_a_conversion_multiplies_weights_with_the_factors(tied: bool) -> None:
    checkpoint = hf_checkpoint("falcon-h1", **FACTORS)
    if tied:
        weights = {name: weight for name, weight in checkpoint.weights.items() if name != "lm_head.weight"}
        checkpoint = checkpoint._replace(weights=weights)
    converted = with_gguf_names(checkpoint)
    assert not [node for node in trace_model(converted, CONTEXT).nodes if node.op.name == "scale"]
    np.testing.assert_allclose(logits(converted), logits(checkpoint), rtol=1e-5, atol=1e-5)
    if not tied:
        check_same_model(without_factors(checkpoint), converted)


@pytest.mark.parametrize("name", FACTORS)
def test_every_factor_counts(name: str) -> None:
    plain = logits(hf_checkpoint("falcon-h1"))
    assert np.abs(logits(hf_checkpoint("falcon-h1", **{name: FACTORS[name]})) - plain).max() > 1e-4


def test_the_factor_of_keys_is_one_of_scores() -> None:
    program = trace_model(hf_checkpoint("falcon-h1", key_multiplier=0.5), CONTEXT)
    assert attributes(program, "attention", "scale") == [0.5 * 16**-0.5] * 2


def test_the_norm_is_behind_the_gate_unless_the_config_says_otherwise() -> None:
    def order(checkpoint: Checkpoint) -> list[str]:
        names = [node.op.name for node in trace_model(checkpoint, CONTEXT).nodes if node.layer == 0]
        after = names[names.index("selective_scan") :]
        return [name for name in after[: after.index("linear")] if name != "reshape"]

    assert order(random_checkpoint("falcon-h1")) == ["selective_scan", "glu"]
    assert order(random_checkpoint("falcon-h1", optional=True)) == ["selective_scan", "glu", "grouped_rms_norm"]
    first = hf_checkpoint("falcon-h1", mamba_norm_before_gate=None)  # as transformers has it
    assert order(first) == ["selective_scan", "grouped_rms_norm", "glu"]


def test_a_norm_in_some_layers_only_is_no_falcon() -> None:
    whole = random_checkpoint("falcon-h1", optional=True)
    with pytest.raises(ModelError, match=r"weight blk\.1\.ssm_norm is missing"):
        trace_model(with_weights(whole, {"blk.1.ssm_norm.weight": None}), CONTEXT)
    with pytest.raises(ModelError, match=r"weight blk\.1\.ssm_norm \(of 1\) has no use in a model of this"):
        trace_model(with_weights(whole, {"blk.0.ssm_norm.weight": None}), CONTEXT)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("ssm_multipliers", [1.0] * 4, "ssm_multipliers is .* not 5 positive numbers"),
        ("mlp_multipliers", [1.0, 0.0], "mlp_multipliers is .* not 2 positive numbers"),
        ("key_multiplier", -1.0, "key_multiplier is '-1.0', not a positive number"),
        ("projectors_bias", True, "projectors_bias is True: sotol runs falcon-h1 with False"),
        ("mamba_n_groups", 3, "so many heads can't be 3 equal groups"),
        ("time_step_limit", [0.01, 0.1], r"time_step_limit is \[0.01, 0.1\]: sotol runs falcon-h1 with \[0.0, inf\]"),
    ],
)
def test_what_can_not_be(key: str, value: object, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        trace_model(hf_checkpoint("falcon-h1", **{key: value}), CONTEXT)
