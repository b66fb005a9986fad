"""Synthetic models for benchmarks: files that sotol runs, whose numbers stay finite, the same each time."""

from pathlib import Path

import numpy as np
import pytest
from bench import synthetic
from tests.support.running import limits_for, run_text

from sotol.backends.reference import ReferenceRunner
from sotol.formats import read_gguf, write_gguf
from sotol.models import ARCHITECTURES, trace_model

SMALL: dict[str, dict[str, object]] = {
    "qwen35": {
        "block_count": 4, "attention.head_count_kv": 2, "ssm.group_count": 2, "ssm.time_step_rank": 2,
        "ssm.inner_size": 256,
    },
    "nemotron_h": {
        "block_count": 4, "feed_forward_length": [0, 256, 0, 0], "attention.head_count_kv": [0, 0, 2, 0],
        "ssm.time_step_rank": 16, "ssm.inner_size": 1024,
    },
    "lfm2": {"block_count": 3, "attention.head_count_kv": [0, 2, 0]},
    "qwen3moe": {"block_count": 2, "attention.head_count_kv": 1, "expert_count": 8, "expert_feed_forward_length": 256},
    "gpt-oss": {"block_count": 2, "attention.head_count_kv": 1, "expert_count": 8, "expert_feed_forward_length": 64},
    "deepseek2": {
        "block_count": 2, "attention.key_length": 320, "attention.value_length": 256, "attention.q_lora_rank": 256,
        "attention.kv_lora_rank": 256, "expert_count": 8, "expert_feed_forward_length": 256,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and narrower layers, fewer words."""
    monkeypatch.setattr(synthetic, "VOCABULARY", 300)
    sizes: dict[str, object] = {"embedding_length": 256, "feed_forward_length": 256, "attention.head_count": 2}
    sizes |= {"attention.key_length": 128, "attention.value_length": 128}
    shapes = {name: {**synthetic.SHAPES[name], **sizes, **SMALL[name]} for name in SMALL}
    monkeypatch.setattr(synthetic, "SHAPES", shapes)


@pytest.mark.parametrize("architecture", SMALL)
def test_a_synthetic_model_runs(architecture: str, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.gguf", "b.gguf")]
    for path in paths:
        made = synthetic.checkpoint_of(architecture)
        write_gguf(path, made.metadata, made.weights.values(), types=made.types)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    program = trace_model(read_gguf(paths[0]), 64)
    logits = run_text(ReferenceRunner(program, limits_for(program, 64)), list(range(40)), [40])
    assert np.isfinite(logits).all()
    assert np.abs(logits).max() < 1000
    assert len(np.unique(logits.argmax(axis=1))) > 5


def test_every_shape_is_of_an_architecture() -> None:
    assert synthetic.SHAPES.keys() <= set(ARCHITECTURES)
