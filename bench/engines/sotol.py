"""sotol's CPU backend, as `LLM` sets it up."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from bench.engines.protocol import Ids, Setup

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.running.backend import block_bytes
from sotol.backends.cpu.target import host_target
from sotol.formats import read_gguf
from sotol.kv.sizing import pool_sizes
from sotol.loading import CONTEXTS, LoadOptions, load
from sotol.models import trace_model
from sotol.program.memory import BLOCK_TOKENS, Group, group_caches
from sotol.program.step import Step, Table

__all__ = ["Sotol"]


class Sotol:
    """Blocks are dealt out once: of each group, sequence s has the s-th run of them.

    Where a window leaves blocks behind, a sequence's run is used in a circle. It has room for what a step sees twice,
    so that an answer much longer than the window may be rewound.
    """

    def __init__(self, setup: Setup) -> None:
        options = LoadOptions(threads=setup.threads, ctx=setup.context)
        if setup.sequences > CONTEXTS - 1:  # more than there is memory for by itself
            options = _with_room(options, setup)
        runner = load(setup.model, options).runner
        assert isinstance(runner, CpuRunner)
        self._runner = runner
        self._each = [blocks // setup.sequences for blocks in runner.limits.blocks]
        self._logits = np.zeros((0, 0), np.float32)
        self.about = f"sotol {version('sotol')}, level {host_target().level}"

    def clear(self) -> None:
        """Nothing: positions say what the cache holds."""

    def prompt(self, ids: Ids, sequence: int) -> None:
        chunk = self._runner.limits.tokens
        for at in range(0, len(ids), chunk):
            part = ids[at : at + chunk]
            self._run(part, range(at, at + len(part)), (0, len(part)), [sequence], [len(part) - 1])

    def step(self, tokens: Ids, position: int) -> None:
        count = len(tokens)
        self._run(tokens, [position] * count, range(count + 1), range(count), range(count))

    def rewind(self, position: int) -> None:
        """Nothing, as for `clear`."""

    def likeliest(self) -> int:
        return int(self._logits[-1].argmax())

    def memory(self) -> Mapping[str, int]:
        sizes = self._runner.memory()
        return {"panels": sizes["panels"], "cache": sizes["cache"]}

    def _run(self, tokens: Ids, positions: Ids, starts: Ids, sequences: Sequence[int], rows: Ids) -> None:
        """One step of sequences that begin and end at the same positions."""
        ids, places, begins, wanted = (np.array(x, np.int32) for x in (tokens, positions, starts, rows))
        tables = (
            _table(group, each, sequences, positions[0], positions[-1])
            for group, each in zip(self._runner.groups, self._each, strict=True)
        )
        self._logits = self._runner.run(Step(ids, places, begins, tuple(tables), wanted))["logits"]


def _with_room(options: LoadOptions, setup: Setup) -> LoadOptions:
    """With memory for a whole context of each sequence."""
    assert options.ctx is not None
    groups = group_caches(trace_model(read_gguf(Path(setup.model)), options.ctx).caches())
    sequences = max(options.sequences, setup.sequences)
    tokens = setup.sequences * -(-options.ctx // BLOCK_TOKENS) * BLOCK_TOKENS
    counts = pool_sizes(groups, tokens, context=options.ctx, step_tokens=options.step_tokens, sequences=sequences)
    memory = sum(count * size for count, size in zip(counts, block_bytes(groups), strict=True))
    return LoadOptions(threads=options.threads, ctx=options.ctx, sequences=sequences, kv_memory=max(1, memory))


def _table(group: Group, each: int, sequences: Sequence[int], begin: int, last: int) -> Table:
    """The blocks that sequences see at positions begin .. last."""
    if group.state:
        return Table(np.array([[s * each] for s in sequences], np.int32), np.zeros(len(sequences), np.int32))
    first = max(0, begin - group.window + 1) // BLOCK_TOKENS if group.window else 0
    columns = range(first, last // BLOCK_TOKENS + 1)
    blocks = [[s * each + n % each for n in columns] for s in sequences]
    return Table(np.array(blocks, np.int32), np.full(len(sequences), first, np.int32))
