"""AFM-4.5B: what passes a squared ReLU, and its config."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.configs import hf_checkpoint
from tests.support.tracing import IDS, attributes, logits_of, program_of

from sotol.errors import ModelError
from sotol.models import trace_model


def test_the_feed_forward_network_is_a_square() -> None:
    """Twice the input of a squared ReLU is four times its output."""
    assert attributes(program_of("arcee"), "activate", "act") == ["relu2"] * 2
    model = random_checkpoint("arcee")
    up, down = (model.weights[f"blk.1.ffn_{name}.weight"].decode() for name in ("up", "down"))
    same = with_weights(
        model, {"blk.1.ffn_up.weight": up * np.float32(2), "blk.1.ffn_down.weight": down * np.float32(0.25)}
    )
    one, other = (logits_of(trace_model(c, 32), IDS) for c in (model, same))
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_another_activation_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^config\.json's hidden_act is 'silu': sotol runs arcee with 'relu2'"):
        trace_model(hf_checkpoint("arcee", hidden_act="silu"), 32)
