"""Cases as data: programs that one machine writes to a file, so that every CPU has the same numbers to compute with.

NumPy's own functions differ between machines in a last bit here and there, so nothing is drawn twice.
"""

import pickle
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.running import sharing
from sotol.backends.cpu.running.fitting import Encoder
from sotol.backends.cpu.running.memory import Codecs
from sotol.backends.cpu.target import Target
from sotol.program.program import OPS, Op, Program
from sotol.program.step import Limits, Step
from sotol.quant import Encoding, Float32Array, encoding_named

__all__ = ["Case", "Encoded", "Steps", "read_cases", "write_cases"]

Array = npt.NDArray[Any]


class Steps(NamedTuple):
    """Steps of a program, which quantises its activations by itself if it is to."""

    name: str
    program: Program
    steps: Sequence[Step]
    limits: Limits
    codecs: Codecs | str = "f32"
    span_rows: int = sharing.SPAN_ROWS  # as `sharing.py` has it: 0 to share out no spans

    def results(self, target: Target, threads: int) -> Array:
        """All results beside each other, one step's below the other's."""
        found = list[Array]()
        with mock.patch.object(sharing, "SPAN_ROWS", self.span_rows):
            runner = CpuRunner(self.program, self.limits, threads=threads, codecs=self.codecs, target=target)
            with closing(runner):
                for step in self.steps:
                    results = runner.run(step._replace(tables=step.tables[: len(runner.groups)])).values()
                    found.append(np.concatenate([x.reshape(len(x), -1) for x in results], axis=1))
        every = np.concatenate(found)
        every[np.isnan(every)] = np.nan  # a NaN's own bits are the CPU's
        return every


class Encoded(NamedTuple):
    """Rows of numbers to be encoded, whose columns may have importance."""

    name: str
    encoding: Encoding
    x: Float32Array
    importance: Float32Array | None = None

    def results(self, target: Target, threads: int) -> Array:  # noqa: ARG002  (an encoder's threads are its callers)
        """The bytes of the rows' blocks."""
        encoder = Encoder([(self.encoding, self.importance is not None)], target=target)
        return encoder.encode(self.encoding, self.x, self.importance)


Case = Steps | Encoded


class _Pickler(pickle.Pickler):
    """Ops and encodings have functions: they are written by name."""

    def persistent_id(self, obj: object) -> tuple[str, str] | None:
        if isinstance(obj, Op):
            return "op", obj.name
        return ("encoding", obj.name) if isinstance(obj, Encoding) else None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> Op | Encoding:
        kind, name = pid
        return OPS[name] if kind == "op" else encoding_named(name)


def write_cases(path: Path, cases: Iterable[Case]) -> None:
    """Write cases, one after the other."""
    with path.open("wb") as file:
        for case in cases:
            _Pickler(file).dump(case)


def read_cases(path: Path) -> list[Case]:
    """What `write_cases` wrote. The file must come from a process of the same sources."""
    cases = list[Case]()
    with path.open("rb") as file:
        while file.peek(1):
            cases.append(_Unpickler(file).load())
    return cases
