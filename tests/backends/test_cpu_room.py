"""A model whose experts are more than memory can hold: their panels lie in a file."""

import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.running import limits_for, run_text

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.running import room, runner
from sotol.errors import SotolError
from sotol.models import trace_model
from sotol.program.program import Program
from sotol.quant import Float32Array

IDS = np.random.default_rng(3).integers(0, 48, 30).tolist()
pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no file can be made of a size at once")


@pytest.fixture(scope="module")
def program() -> Program:
    """1.9 MB of experts, and 0.2 MB of other weights."""
    sizes = {"embedding_length": 64, "expert_count": 20, "expert_feed_forward_length": 60}
    return trace_model(random_checkpoint("qwen2moe", sizes), 64)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's cache folder, for the file of experts alone."""
    monkeypatch.setattr(room, "cache_folder", lambda: tmp_path / "sotol")
    return tmp_path / "sotol"


def logits(program: Program) -> Float32Array:
    with closing(CpuRunner(program, limits_for(program, 64), threads=2)) as made:
        return run_text(made, IDS, [20, *[1] * 10])


def test_experts_in_a_file_give_the_same_bits(
    program: Program, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    in_memory = logits(program)
    assert not folder.exists()
    monkeypatch.setattr(runner, "whole_memory", lambda: 1 << 20)
    made, take = list[int](), os.posix_fallocate

    def count(descriptor: int, begin: int, size: int) -> None:
        made.append(size)
        take(descriptor, begin, size)

    monkeypatch.setattr(os, "posix_fallocate", count)
    in_file = logits(program)
    np.testing.assert_array_equal(in_file.view(np.int32), in_memory.view(np.int32))
    assert made == [sum(room.sizes_of([x]).experts for x in program.weights() if len(x.shape) == 3)]
    assert not list(folder.iterdir()), "which has no name, or none any more"
    assert [record.getMessage() for record in caplog.records if "experts" in record.getMessage()] == [
        f"the model's experts are kept in a file of 1 MB in {folder}, since memory can't hold them"
    ]


def test_what_else_a_model_needs_must_fit(program: Program, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "whole_memory", lambda: 100 << 10)
    with pytest.raises(SotolError, match=r"^the model needs 2 MB of memory \(2 for weights"):
        logits(program)
    assert not folder.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("no home")])
def test_no_room_on_the_disk_is_said(
    program: Program, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(runner, "whole_memory", lambda: 1 << 20)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(SotolError, match=r"can't hold the model's experts, and a file of 1 MB for them can't be made"):
        logits(program)
    assert not list(folder.iterdir())
