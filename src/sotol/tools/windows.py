"""Texts in windows of tokens, each run from empty memory: what perplexity and importance are measured on.

Windows are llama.cpp's: the text's tokens cut into equal lengths, the rest left out; where the model wants a bos, it
takes the place of each window's first token. R rows of results, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from sotol.arrays import Int32Array
from sotol.backends.table import backend
from sotol.errors import ModelError, explained
from sotol.formats import Checkpoint, is_hub_model, read_model
from sotol.models import described, trace_model
from sotol.program.fuse import quantize_inputs
from sotol.program.memory import BLOCK_TOKENS, group_caches
from sotol.program.program import Program
from sotol.program.runner import Results, Runner
from sotol.program.step import Limits, Step, Table
from sotol.progress import Progress
from sotol.tokenizers import Tokenizer

__all__ = ["WindowRunner", "cut", "open_windows", "windows_of"]

STEP_TOKENS = 128  # of a window that run at once: bounds what logits take
SHORTEST = 8  # tokens of a window


class WindowRunner(NamedTuple):
    """A model that runs windows of up to `size` tokens. Whoever has it closes its runner."""

    path: Path
    runner: Runner
    tokenizer: Tokenizer
    vocabulary: int
    size: int

    def run(self, window: Int32Array, first: int | None = None) -> Iterator[tuple[int, Results]]:
        """Results of a window in parts, each with the position of its first row; valid until the next is asked for.

        first: rows are the tokens from this position on; parts before it are left out. None: all parts, each with one
        row, of its last token.
        """
        for begin in range(0, len(window), STEP_TOKENS):
            end = min(begin + STEP_TOKENS, len(window))
            start = end - 1 if first is None else max(begin, first)
            wanted = range(start, end) if start < end else range(end - 1, end)
            results = self.runner.run(self._step(window, begin, end, [p - begin for p in wanted]))
            if start < end:
                yield start, results

    def _step(self, window: Int32Array, begin: int, end: int, rows: Sequence[int]) -> Step:
        count, blocks = end - begin, -(-end // BLOCK_TOKENS)
        tables = tuple(
            Table(np.arange(1 if group.state else blocks, dtype=np.int32)[None], np.zeros(1, np.int32))
            for group in self.runner.groups
        )
        return Step(
            np.ascontiguousarray(window[begin:end], np.int32),
            np.arange(begin, end, dtype=np.int32),
            np.array([0, count], np.int32),
            tables,
            np.array(rows, np.int32),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.runner.close()


def open_windows(
    path: Path, size: int, *, precision: str = "int8", threads: int | None = None, name: str = "cpu",
    watch: Callable[[Program], None] = lambda _: None, progress: Progress | None = None,
) -> WindowRunner:  # fmt: skip
    """A model to run windows of `size` tokens with. watch(program) may add results before it is compiled.

    ValueError for a size that does not suit the model; errors besides as of `loading.load`.
    """
    with explained(f"reading {path}"):
        checkpoint = read_model(path)
        _check_size(checkpoint, size)
        program = trace_model(checkpoint, size)
        watch(program)
        vocabulary = int(program.results["logits"].shape[-1])
        tokenizer = (
            Tokenizer.from_folder(path, logits=vocabulary)
            if is_hub_model(path)
            else Tokenizer.from_metadata(checkpoint.metadata, str(path), logits=vocabulary)
        )
    if precision == "int8":
        program = quantize_inputs(program)
    groups = group_caches(program.caches())
    blocks = tuple(1 if group.state else -(-size // BLOCK_TOKENS) for group in groups)
    limits = Limits(min(size, STEP_TOKENS), 1, min(size, STEP_TOKENS), size, blocks)
    runner = backend(name).make_runner(program, limits, threads=threads, progress=progress)
    try:
        if progress is not None:
            runner.wait(progress)
    except BaseException:
        runner.close()
        raise
    return WindowRunner(path, runner, tokenizer, vocabulary, size)


def _check_size(checkpoint: Checkpoint, size: int) -> None:
    most = described(checkpoint.metadata).find("context_length")
    if size < SHORTEST or (isinstance(most, int) and size > most):
        raise ValueError(f"windows of {size} tokens: the model takes from {SHORTEST} to {most}")


def windows_of(tokenizer: Tokenizer, text: str, size: int, most: int | None = None) -> tuple[Int32Array, Int32Array]:
    """The tokens of a text in windows [n, size], as they are and as they are run; at most `most`.

    ModelError for a text of less than one window.
    """
    ids = np.array(tokenizer.encode(text), np.int32)
    count = len(ids) // size if most is None else min(most, len(ids) // size)
    if count < 1:
        raise ModelError(f"the text has {len(ids)} tokens, and a window {size}: give more text, or a smaller window")
    plain = ids[: count * size].reshape(count, size)
    return plain, cut(tokenizer, plain)


def cut(tokenizer: Tokenizer, windows: Int32Array) -> Int32Array:
    """Windows as they are run: with bos in the place of their first tokens, if the model wants one."""
    if not tokenizer.adds_bos or tokenizer.bos is None:
        return windows
    run = windows.copy()
    run[:, 0] = tokenizer.bos
    return run
