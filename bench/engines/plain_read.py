"""No engine: threads that only read as many bytes as a token's weights have, each its part from end to end."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.engines.protocol import Ids, Setup
from bench.limits import Reading

from sotol.formats import Weight, read_gguf
from sotol.models import trace_model
from sotol.program import ops

__all__ = ["PlainRead", "token_bytes"]


def token_bytes(model: str | Path) -> int:
    """Bytes of all matrices that a token multiplies, as the file stores them."""
    program = trace_model(read_gguf(model), 1)
    share = {  # of its bytes that a token reads, by weight
        x: int(n.shape[1]) / x.shape[0] if n.op is ops.expert_linear else 1
        for n in program.nodes
        if n.op in (ops.linear, ops.expert_linear)
        for x in n.inputs
        if isinstance(x, Weight)
    }
    return round(sum(weight.nbytes * part for weight, part in share.items()))


class PlainRead:
    """A step is one pass over the bytes."""

    def __init__(self, setup: Setup) -> None:
        self._size, self._threads = token_bytes(setup.model), setup.threads
        self._reading = Reading(self._size)
        self.about = f"{self._size / 1e6:.0f} MB a step"

    def prefill(self, ids: Ids) -> float:
        raise NotImplementedError

    def decode(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> float:  # noqa: ARG002 (no model)
        rate = max(self._reading.rates(self._threads)["read, one stream"] for _ in answers)
        return self._size / rate * len(answers)  # what the memory can do, not what disturbs it

    def first(self, ids: Ids) -> int:
        raise NotImplementedError

    def memory(self) -> Mapping[str, int]:
        return {}
