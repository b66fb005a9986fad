"""EXAONE 4: which layers have a window and rotate."""

import numpy as np
from tests.support.checkpoints import random_checkpoint, with_weights
from tests.support.tracing import IDS, logits_of, program_of, tables_by_layer, windows_of

from sotol.models import trace_model


def test_without_windows_all_layers_rotate() -> None:
    program = program_of("exaone4", block_count=5)
    assert windows_of(program) == [0] * 5
    assert list(tables_by_layer(program)) == [0, 1, 2, 3, 4]


def test_with_windows_only_those_layers_rotate() -> None:
    program = program_of("exaone4", block_count=5, attention__sliding_window=6)
    assert windows_of(program) == [6, 6, 6, 0, 6]
    assert list(tables_by_layer(program)) == [0, 1, 2, 4]
    full = program_of("exaone4", attention__sliding_window=6, attention__sliding_window_pattern=[False, False])
    assert list(tables_by_layer(full)) == []


def test_divisors_of_a_file_are_used() -> None:
    model = random_checkpoint("exaone4")
    divided = with_weights(model, {"rope_freqs.weight": np.full(8, 4, np.float32)})
    linear = random_checkpoint("exaone4", {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0})
    one, other = (logits_of(trace_model(c, 32), IDS) for c in (divided, linear))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_length_of_what_a_block_adds_does_not_matter() -> None:
    model = random_checkpoint("exaone4", {"attention.layer_norm_rms_epsilon": 1e-30})
    longer = {name: 8 * model.weights[name].decode() for name in ("blk.0.attn_output.weight", "blk.1.ffn_down.weight")}
    plain, same = (logits_of(trace_model(c, 32), IDS) for c in (model, with_weights(model, {**longer})))
    np.testing.assert_allclose(same, plain, atol=1e-9)
