"""What a backend offers: the only interface through which the engine, the command line and tests use one."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sotol.arrays import Float32Array
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.memory import Copy, Group
from sotol.program.program import Program, StepInput
from sotol.program.step import Limits, Step
from sotol.progress import Progress

__all__ = ["Backend", "Results", "Runner", "vocabulary_of"]

Results = Mapping[str, Float32Array]  # the program's results by name: "logits" [R, V], "hidden" [R, D], …


class Runner(Protocol):
    """A compiled program with its own cache memory. Not thread-safe: one call at a time."""

    @property
    def limits(self) -> Limits: ...
    @property
    def threads(self) -> int:
        """How many CPU threads it uses."""
        ...

    @property
    def groups(self) -> tuple[Group, ...]:
        """The program's groups of caches, in the order of `Step.tables` and `limits.blocks`."""
        ...

    def run(self, step: Step) -> Results:
        """Run a step; the results are valid until the next run. ValueError for a step beyond the limits."""
        ...

    def copy(self, copies: Sequence[Copy]) -> None:
        """Copy blocks, in order, before the next run. ValueError for a block that does not exist."""
        ...

    def read(self, group: int, block: int) -> bytes:
        """The contents of a block, in a format of the backend's own that `write` accepts."""
        ...

    def write(self, group: int, block: int, data: bytes) -> None:
        """Restore a block from what `read` returned; ValueError for data of another size."""
        ...

    def wait(self, progress: Progress) -> None:
        """Wait until the weights are loaded, which may happen in the background. `run` waits by itself."""
        ...

    def close(self) -> None:
        """End its threads. Any thread may call it, any number of times."""
        ...


class Backend(Protocol):
    """A module that makes runners."""

    def missing(self, program: Program, context: int = 1) -> list[str]:
        """What the backend can't run of a program, with contexts of `context` tokens: one sentence for each lack."""
        ...

    def block_bytes(self, groups: Sequence[Group]) -> list[int]:
        """Bytes of one block of each group."""
        ...

    def available_memory(self) -> int | None:
        """Bytes of the memory where blocks would be that could be had now; None where nobody can tell."""
        ...

    def make_runner(
        self, program: Program, limits: Limits, *, threads: int | None = None, progress: Progress | None = None
    ) -> Runner:
        """A runner with memory for these limits. ModelError if `missing` says anything, SotolError without memory."""
        ...


def vocabulary_of(program: Program) -> int:
    """How many token ids a step may name: the rows of the smallest matrix that they look up; 2**31 if there is none."""
    nodes = [part for node in program.nodes for part in node.parts or (node,)]
    looked_up = [node.inputs for node in nodes if node.op is ops.embed]
    return min(
        (table.shape[0] for table, ids in looked_up
         if isinstance(table, Weight) and isinstance(ids, StepInput) and ids.name == "tokens"),
        default=2**31,
    )  # fmt: skip
