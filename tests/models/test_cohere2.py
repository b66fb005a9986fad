"""Command R7B: which layers rotate, a norm that ignores what all channels share, and both blocks on one input."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.tracing import IDS, logits_of, program_of, tables_by_layer, windows_of

from sotol.errors import ModelError
from sotol.models import trace_model


def test_windowed_layers_rotate_and_the_others_do_not() -> None:
    program = program_of("cohere2", block_count=8, attention__sliding_window=6)
    assert windows_of(program) == [6, 6, 6, 0] * 2
    assert list(tables_by_layer(program)) == [0, 1, 2, 4, 5, 6]


def test_what_all_channels_of_an_embedding_share_does_not_matter() -> None:
    """It stays in the sum of all blocks, and every layer norm takes it out."""
    model = random_checkpoint("cohere2", optional=True)
    lifted = with_weights(model, {"token_embd.weight": model.weights["token_embd.weight"].decode() + np.float32(2)})
    plain, same = (logits_of(trace_model(c, 32), IDS) for c in (model, lifted))
    np.testing.assert_allclose(same, plain, atol=1e-5)


def test_both_blocks_of_a_layer_read_the_same_norm() -> None:
    program = program_of("cohere2", block_count=1)
    first = next(i for i, node in enumerate(program.nodes) if node.op.name == "layer_norm")
    readers = [n.inputs[1] for n in program.nodes if any(getattr(x, "index", None) == first for x in n.inputs)]
    assert [getattr(w, "name", "") for w in readers] == [
        f"blk.0.{name}.weight" for name in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")
    ]


def test_logits_are_scaled() -> None:
    half, whole = (logits_of(program_of("cohere2", logit_scale=s), IDS) for s in (0.5, 1.0))
    np.testing.assert_allclose(2 * half, whole, atol=1e-12)


@pytest.mark.parametrize("key", ["attention.layer_norm_epsilon", "attention.sliding_window", "logit_scale"])
def test_what_no_file_may_lack_is_named(key: str) -> None:
    with pytest.raises(ModelError, match=rf"metadata cohere2\.{key.replace('.', chr(92) + '.')} is missing"):
        trace_model(random_checkpoint("cohere2", {key: None}), 32)
