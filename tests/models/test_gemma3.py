"""Gemma 3: which layers have windows, what they hide, and the factors that metadata gives."""

from typing import Any

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.running import limits_for, run_text

from sotol.backends.reference import ReferenceRunner
from sotol.errors import ModelError
from sotol.models import trace_model
from sotol.program.memory import Paged
from sotol.program.program import Constant, Program
from sotol.quant import Float32Array

IDS = np.random.default_rng(8).integers(0, 48, 30).tolist()


def program_with(**keys: object) -> Program:
    fields = {key.replace("__", "."): value for key, value in keys.items()}
    return trace_model(random_checkpoint("gemma3", fields), 32)


def attributes(program: Program, op: str, name: str) -> list[Any]:
    return [node.attributes[name] for node in program.nodes if node.op.name == op]


def windows_of(program: Program) -> list[int]:
    """Of each layer's cache, which its attention reads, too."""
    layouts = [cache.layout for cache in program.caches() if isinstance(cache.layout, Paged)]
    read = [node.inputs[1] for node in program.nodes if node.op.name == "attention"]
    assert read == program.caches()
    return [layout.window for layout in layouts]


def tables(program: Program) -> list[Constant]:
    """The tables that the rotations of queries use, by layer."""
    return [x for node in program.nodes if node.op.name == "rope" for x in node.inputs if isinstance(x, Constant)][::2]


def logits_of(program: Program, ids: list[int]) -> Float32Array:
    return run_text(ReferenceRunner(program, limits_for(program, 32), np.float64, np.float64), ids, [len(ids)])


@pytest.mark.parametrize(
    ("pattern", "windows"),
    [
        (None, [9, 9, 9, 9, 9, 0, 9]),
        (3, [9, 9, 0, 9, 9, 0, 9]),
        (1, [0] * 7),
        (0, [9] * 7),
        ([True, False, False, True, True, True, False], [9, 0, 0, 9, 9, 9, 0]),
    ],
)
def test_the_pattern_says_which_layers_have_a_window(pattern: object, windows: list[int]) -> None:
    program = program_with(block_count=7, attention__sliding_window=9, attention__sliding_window_pattern=pattern)
    assert windows_of(program) == windows
    assert [table.name for table in tables(program)] == ["rope_local" if window else "rope" for window in windows]


def test_without_a_window_every_layer_sees_everything() -> None:
    assert windows_of(program_with(block_count=7)) == [0] * 7


def test_windowed_layers_have_a_base_of_their_own_and_no_scaling() -> None:
    keys = {"rope__freq_base": 1e6, "rope__scaling__type": "linear", "rope__scaling__factor": 8.0}
    program = program_with(
        attention__sliding_window=9, attention__sliding_window_pattern=[True, False], rope__freq_base_swa=300.0, **keys
    )
    angle = np.arange(32)[:, None] * (300.0 ** -(np.arange(8) / 8))
    full = np.arange(32)[:, None] / 8 * (1e6 ** -(np.arange(8) / 8))
    for table, expected in zip(tables(program), (angle, full), strict=True):
        np.testing.assert_allclose(table.value, np.stack([np.cos(expected), np.sin(expected)], axis=1), atol=1e-6)


def test_a_window_hides_what_is_older() -> None:
    """Through 2 layers of window 5 a token reaches 2 * 4 tokens back, and no further."""
    program = program_with(attention__sliding_window=5, attention__sliding_window_pattern=0)
    plain = logits_of(program, IDS)
    for changed in range(len(IDS)):
        other = [*IDS[:changed], (IDS[changed] + 1) % 48, *IDS[changed + 1 :]]
        differs = (np.abs(logits_of(program, other) - plain) > 1e-12).any(axis=1)
        assert np.flatnonzero(differs).tolist() == list(range(changed, min(changed + 9, len(IDS))))


def test_a_layer_without_window_sees_everything() -> None:
    program = program_with(attention__sliding_window=5, attention__sliding_window_pattern=2)
    other = [(IDS[0] + 1) % 48, *IDS[1:]]
    assert (np.abs(logits_of(program, other) - logits_of(program, IDS)) > 1e-12).any(axis=1).all()


def test_embeddings_are_scaled_by_the_root_of_the_width() -> None:
    assert attributes(program_with(), "scale", "factor") == [32**0.5]


def test_the_scale_of_queries() -> None:
    assert attributes(program_with(attention__key_length=64), "attention", "scale") == [1 / 8] * 2
    as_27b = program_with(attention__key_length=64, block_count=62)
    assert attributes(as_27b, "attention", "scale") == [16**-0.5] * 62  # the width per head: 32 / 2


def test_caps() -> None:
    keys = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 0.25}
    capped, plain = program_with(**keys), program_with(attn_logit_softcapping=0.0, final_logit_softcapping=0.0)
    assert attributes(capped, "attention", "cap") == [50.0] * 2
    assert attributes(plain, "attention", "cap") == [0.0] * 2
    assert np.abs(logits_of(plain, IDS)).max() > 0.25
    assert np.abs(logits_of(capped, IDS)).max() <= 0.25


def test_feed_forward_uses_the_tanh_form_of_gelu() -> None:
    assert attributes(program_with(), "glu", "act") == ["gelu_tanh"] * 2


def test_a_wrong_pattern_is_named() -> None:
    with pytest.raises(ModelError, match=r"gemma3\.attention\.sliding_window_pattern is '\[True\]'"):
        program_with(attention__sliding_window=5, attention__sliding_window_pattern=[True])
