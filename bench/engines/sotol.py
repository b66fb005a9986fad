"""sotol's CPU backend, as `LLM` sets it up."""

from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
from bench.engines.protocol import Ids, Setup

from sotol import LLM
from sotol.backends.cpu.target import host_target
from sotol.llm import CONTEXTS
from sotol.program.step import BLOCK_TOKENS, Step

__all__ = ["Sotol"]

Int32Array = npt.NDArray[np.int32]


class Sotol:
    """Blocks of the cache are dealt out once: sequence s has the s-th run of them."""

    def __init__(self, setup: Setup) -> None:
        context = max(setup.context, setup.context * setup.sequences // CONTEXTS)  # so that the cache holds them all
        self._llm = LLM(setup.model, threads=setup.threads, ctx=context)
        each = self._llm.runner.limits.blocks // setup.sequences
        self._blocks = np.arange(setup.sequences * each, dtype=np.int32).reshape(setup.sequences, each)
        self._logits = np.zeros((0, 0), np.float32)
        self.about = f"sotol {version('sotol')}, level {host_target().level}"

    def clear(self) -> None:
        """Nothing: positions say what the cache holds."""

    def prompt(self, ids: Ids, sequence: int) -> None:
        chunk = self._llm.runner.limits.tokens
        for at in range(0, len(ids), chunk):
            part = ids[at : at + chunk]
            positions = np.arange(at, at + len(part), dtype=np.int32)
            self._run(part, positions, (0, len(part)), slice(sequence, sequence + 1), [len(part) - 1])

    def step(self, tokens: Ids, position: int) -> None:
        count = len(tokens)
        self._run(tokens, np.full(count, position, np.int32), range(count + 1), slice(0, count), range(count))

    def rewind(self, position: int) -> None:
        """Nothing, as for `clear`."""

    def likeliest(self) -> int:
        return int(self._logits[-1].argmax())

    def memory(self) -> Mapping[str, int]:
        sizes = self._llm.runner.memory()
        return {"panels": sizes["panels"], "cache": sizes["cache"]}

    def _run(self, tokens: Ids, positions: Int32Array, starts: Ids, sequences: slice, rows: Ids) -> None:
        ids, begins, wanted = (np.array(x, np.int32) for x in (tokens, starts, rows))
        width = int(positions.max()) // BLOCK_TOKENS + 1
        blocks = np.ascontiguousarray(self._blocks[sequences, :width])
        self._logits = self._llm.runner.run(Step(ids, positions, begins, blocks, wanted))
