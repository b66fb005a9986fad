"""Sizes of decoders: what metadata gets wrong is named before anything is allocated."""

import re

import pytest
from tests.support.checkpoints import random_checkpoint

from sotol.errors import ModelError
from sotol.formats.weights import Checkpoint
from sotol.models import trace_model


def traced_with(**keys: object) -> None:
    """Trace a sound checkpoint whose metadata is changed afterwards (None: taken out)."""
    checkpoint = random_checkpoint("llama")
    changes = {f"llama.{key.replace('__', '.')}": value for key, value in keys.items()}
    metadata = {key: value for key, value in {**checkpoint.metadata, **changes}.items() if value is not None}
    trace_model(Checkpoint(checkpoint.path, metadata, checkpoint.weights), 16)


def test_a_sound_checkpoint_is_traced() -> None:
    traced_with()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"block_count": None}, "metadata llama.block_count is missing"),
        ({"block_count": 2**31 - 1}, "20 weights can't be block_count = 2147483647 layers"),
        ({"block_count": 1}, "weight 'blk.1.attn_k' (of 9) is not part of this architecture"),
        ({"block_count": 3}, "weight blk.2.attn_norm is missing"),
        ({"embedding_length": 0}, "metadata llama.embedding_length is '0'"),
        ({"embedding_length": 64}, "weight token_embd has shape [48, 32], not [48, 64]"),
        ({"attention__head_count": 3, "attention__head_count_kv": 2}, "3 query heads can't share 2 key-value heads"),
        ({"attention__head_count": 3}, "width 32 is no multiple of 3 heads"),
        ({"attention__key_length": 2**30}, "heads of width 1073741824 are wider than the 4096 of sotol"),
        ({"attention__key_length": 16, "attention__value_length": 32}, "keys and values of different widths"),
        ({"attention__layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing"),
        ({"feed_forward_length": [64]}, "llama.feed_forward_length is '[64]', not a whole number for each of 2 layers"),
        ({"feed_forward_length": [64, 128]}, "weight blk.1.ffn_gate has shape [64, 32], not [128, 32]"),
        ({"attention__head_count": [2, 4]}, "width 32 is no multiple of 2 and 4 heads"),
    ],
)
def test_what_is_wrong_is_named(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        traced_with(**keys)
