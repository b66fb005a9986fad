"""No engine: threads that only read as many bytes as a token's weights have. Nothing decodes faster from memory."""

import mmap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
from bench.engines.protocol import Ids, Setup

from sotol.formats import Weight, read_gguf
from sotol.models import trace_model
from sotol.program import ops

__all__ = ["PlainRead", "token_bytes"]


def token_bytes(model: str) -> int:
    """Bytes of all matrices that a token multiplies, as the file stores them."""
    program = trace_model(read_gguf(model), 1)
    matrices = {x.name: x for n in program.nodes if n.op is ops.linear for x in n.inputs if isinstance(x, Weight)}
    return sum(weight.data.nbytes for weight in matrices.values())


class PlainRead:
    """A step is one pass over the bytes, each thread over its part."""

    def __init__(self, setup: Setup) -> None:
        size = token_bytes(setup.model)
        space = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            space.madvise(mmap.MADV_HUGEPAGE)
        memory = np.frombuffer(space, np.uint8)
        memory[:] = 1
        self._parts = np.array_split(memory, setup.threads)
        self._threads = ThreadPoolExecutor(setup.threads)
        self.about = f"{size / 1e6:.0f} MB a step"

    def prefill(self, ids: Ids) -> float:
        raise NotImplementedError

    def decode(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> float:  # noqa: ARG002 (no model)
        best = float("inf")
        for _ in answers:
            begin = perf_counter()
            list(self._threads.map(np.maximum.reduce, self._parts))
            best = min(best, perf_counter() - begin)
        return best * len(answers)  # what the memory can do, not what disturbs it

    def first(self, ids: Ids) -> int:
        raise NotImplementedError

    def memory(self) -> Mapping[str, int]:
        return {}
