"""Importance matrices that are collected, against sums over all that the reference multiplies."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.checkpoints import random_checkpoint
from tests.support.tiny_model import tiny_model

from sotol.backends.reference import ReferenceRunner
from sotol.errors import ModelError
from sotol.formats import Checkpoint, read_gguf, write_gguf
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.program import Node, Program
from sotol.program.step import Step
from sotol.tokenizers import Tokenizer
from sotol.tools.activations import Watch, collect
from sotol.tools.importance import Importance
from sotol.tools.windows import windows_of

TEXT = "the cat sat on the mat, and the dog ran off. " * 3
SIZE = 32


def collected(path: Path, **options: Any) -> Importance:
    return collect(path, TEXT, dataset="t", size=SIZE, backend="reference", precision="f32", **options)


def with_tokenizer(checkpoint: Checkpoint, folder: Path) -> Path:
    """The checkpoint as a file, with the tokenizer of `tiny_model`."""
    fields = read_gguf(tiny_model(folder)).metadata
    tokenizer = {key: value for key, value in fields.items() if key.startswith("tokenizer.")}
    path = folder / "model.gguf"
    write_gguf(path, {**checkpoint.metadata, **tokenizer}, checkpoint.weights.values())
    return path


def test_sums_of_squares_of_what_each_matrix_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, compute = tiny_model(tmp_path), ReferenceRunner._compute
    seen = defaultdict[str, list[np.ndarray]](list)

    def spying(self: Any, node: Node, values: Any, parts: Any, step: Step) -> Any:
        if node.op is ops.linear:
            assert isinstance(node.inputs[1], Weight)
            seen[node.inputs[1].name].append(self._value(node.inputs[0], values, parts, step).astype(np.float64))
        return compute(self, node, values, parts, step)

    monkeypatch.setattr(ReferenceRunner, "_compute", spying)
    found = collected(path)
    matrices = {name for name, w in read_gguf(path).weights.items() if len(w.shape) == 2 and name.startswith("blk.")}
    assert found.sums.keys() == matrices == {name for name in seen if name.startswith("blk.")}
    assert (found.chunk_size, found.datasets) == (SIZE, ("t",))
    for name in found.sums:
        x = np.concatenate(seen[name])
        np.testing.assert_allclose(found.sums[name][0], (x * x).sum(0), rtol=1e-4)
        assert list(found.counts[name]) == [len(x)] == [found.chunks * SIZE]


@pytest.mark.parametrize("architecture", ["mixtral", "olmoe", "gpt-oss"])
def test_experts_count_what_they_took(tmp_path: Path, architecture: str) -> None:
    path = with_tokenizer(random_checkpoint(architecture, {"context_length": 64}), tmp_path)
    found = collected(path)
    tokens = found.chunks * SIZE
    for layer in range(2):
        counts = found.counts[f"blk.{layer}.ffn_down_exps.weight"]
        assert counts.shape == (5,)
        assert counts.sum() == 2 * tokens
        np.testing.assert_array_equal(counts, found.counts[f"blk.{layer}.ffn_up_exps.weight"])
        sums = found.sums[f"blk.{layer}.ffn_up_exps.weight"]
        router = found.sums[f"blk.{layer}.ffn_gate_inp.weight"]
        assert sums.shape == (5, 32)
        np.testing.assert_allclose(sums.sum(0), 2 * router[0], rtol=1e-4)  # each token goes to two, as it is


def test_at_most_so_many_windows(tmp_path: Path) -> None:
    path = tiny_model(tmp_path)
    assert collected(path, most=1).chunks == 1
    assert collected(path).chunks == len(windows_of(Tokenizer.from_gguf(path), TEXT, SIZE)[0]) > 1


def test_what_another_run_has_summed_is_added_to(tmp_path: Path) -> None:
    path = tiny_model(tmp_path)
    one = collected(path, most=1)
    both = collected(path, most=1, earlier=one._replace(datasets=("s",)))
    assert (both.chunks, both.datasets) == (2, ("s", "t"))
    for name, sums in one.sums.items():
        np.testing.assert_allclose(both.sums[name], 2 * sums, rtol=1e-6)  # float32 in between
        np.testing.assert_array_equal(both.counts[name], 2 * one.counts[name])
    first = next(iter(one.sums))
    for other in ({}, {**one.sums, first: one.sums[first][:, 1:]}):
        with pytest.raises(ModelError, match=f"x: is of another model: {re.escape(first)} is not in it"):
            collected(path, earlier=one._replace(sums=other, file="x"))


def test_a_model_that_is_broken(tmp_path: Path) -> None:
    path = tiny_model(tmp_path)
    checkpoint = read_gguf(path)
    weights = dict(checkpoint.weights)
    name = "blk.0.attn_norm.weight"
    weights[name] = type(weights[name]).from_values(name, np.full(32, np.inf, np.float32), "F32")
    broken = tmp_path / "broken.gguf"
    write_gguf(broken, checkpoint.metadata, weights.values(), types=checkpoint.types)
    with pytest.raises(ModelError, match=r"what goes into blk\.0\.attn_q\.weight is not finite"):
        collected(broken)


def test_a_program_without_matrices() -> None:
    with pytest.raises(ModelError, match="no matrices by names"):
        Watch().add_to(Program())
