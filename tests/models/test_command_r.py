"""Command R: all layers rotate; what no file may lack; its larger relative is refused."""

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.configs import hf_checkpoint
from tests.support.tracing import IDS, logits_of, program_of, tables_by_layer, windows_of

from sotol.errors import ModelError
from sotol.models import trace_model


def test_all_layers_rotate_and_see_everything() -> None:
    program = program_of("command-r", block_count=5)
    assert windows_of(program) == [0] * 5
    assert list(tables_by_layer(program)) == [0, 1, 2, 3, 4]


def test_with_windows_that_reach_everywhere_it_is_a_command_r7b() -> None:
    r7b = program_of("cohere2", attention__sliding_window=64, attention__sliding_window_pattern=0)
    np.testing.assert_array_equal(logits_of(program_of("command-r"), IDS), logits_of(r7b, IDS))


@pytest.mark.parametrize("key", ["attention.layer_norm_epsilon", "logit_scale"])
def test_what_no_file_may_lack_is_named(key: str) -> None:
    with pytest.raises(ModelError, match=f"metadata command-r.{key} is missing"):
        trace_model(random_checkpoint("command-r", {key: None}), 32)


def test_norms_of_heads_are_refused() -> None:
    with pytest.raises(ModelError, match=r"^config\.json's use_qk_norm is True: sotol runs command-r with False"):
        trace_model(hf_checkpoint("command-r", use_qk_norm=True), 32)
