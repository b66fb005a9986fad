"""Collects an importance matrix: sums of squares of what goes into each matrix of a model while it reads a text.

A program's results may be any of its tensors: those that matrices are multiplied by become results besides the logits,
so that a step gives them. Which experts a token took is computed anew from the router's logits.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sotol.arrays import Array, Float32Array, Float64Array, Int32Array
from sotol.errors import ModelError
from sotol.formats.files import in_memory
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.program import Constant, Node, Program, Tensor
from sotol.program.runner import Results
from sotol.progress import Progress
from sotol.tools.importance import Importance
from sotol.tools.windows import open_windows, windows_of

__all__ = ["Watch", "collect"]

LAYERS = "blk."  # what begins the names of weights that are watched: the output keeps many bits anyway


class Watched(NamedTuple):
    """What goes into matrices."""

    result: str  # of the program: [T, K], or [T, k, K] flat
    matrices: tuple[str, ...]  # names of the weights
    columns: int
    choose: Callable[[Results], Int32Array] | None = None  # [T, k] of experts, from the results of a step
    experts: int = 1


class Watch:
    """Adds a program's inputs of matrices to its results, and sums their squares as steps give them."""

    def __init__(self) -> None:
        self._watched = list[Watched]()
        self._sums, self._counts = dict[str, Float64Array](), dict[str, Float64Array]()

    def add_to(self, program: Program) -> None:
        """Before the program is compiled. ModelError if it has no matrices of layers."""
        found = dict[tuple[int, int, int], Watched]()
        for node in list(program.nodes):
            x, weight = node.inputs[0], node.inputs[-1]
            if node.op not in (ops.linear, ops.expert_linear) or not isinstance(x, Tensor):
                continue
            assert isinstance(weight, Weight)
            name = weight.name.partition("[")[0]  # without the rows of a part
            if not name.startswith(LAYERS):
                continue
            choice = node.inputs[1] if node.op is ops.expert_linear else None
            at = x.index, x.output, choice.index if isinstance(choice, Tensor) else -1
            if at not in found:
                result = f"input {x.index}.{x.output}"
                program.results[result] = x
                chooser = _chooser(program, choice) if isinstance(choice, Tensor) else None
                experts = weight.shape[0] if chooser is not None else 1
                found[at] = Watched(result, (), weight.shape[-1], chooser, experts)
            if name not in found[at].matrices:
                found[at] = found[at]._replace(matrices=(*found[at].matrices, name))
        self._watched = list(found.values())
        if not self._watched:
            raise ModelError("the model has no matrices by names that importance matrices have: convert it to GGUF")
        for watched in self._watched:
            for name in watched.matrices:
                self._sums[name] = np.zeros((watched.experts, watched.columns))
                self._counts[name] = np.zeros(watched.experts)

    def begin_with(self, earlier: Importance) -> None:
        """Add to the sums of an earlier run, once the program is known. ModelError if they are of another model."""
        for name, sums in self._sums.items():
            known, counts = earlier.sums.get(name), earlier.counts.get(name)
            if known is None or counts is None or (known.size, counts.size) != (sums.size, self._counts[name].size):
                raise ModelError(f"{earlier.file}: is of another model: {name} is not in it, or has another shape")
            sums += known.reshape(sums.shape)
            self._counts[name] += counts.reshape(-1)

    def take(self, results: Results) -> None:
        """Add what a step had."""
        for watched in self._watched:
            x = results[watched.result]
            if watched.choose is None:
                squares = np.einsum("tk,tk->k", x, x, dtype=np.float64)[None]
                counts = np.array([len(x)], np.float64)
            else:
                squares, counts = _of_experts(x, watched.choose(results), watched)
            for name in watched.matrices:
                self._sums[name] += squares
                self._counts[name] += counts

    def importance(self, chunks: int, chunk_size: int, datasets: tuple[str, ...]) -> Importance:
        """What was summed; ModelError if it is not finite."""
        for name, sums in self._sums.items():
            if not np.isfinite(sums).all():
                raise ModelError(f"what goes into {name} is not finite: the model, or its quantisation, is broken")
        return Importance(_narrow(self._sums), _narrow(self._counts), chunks, chunk_size, datasets)


def _narrow(numbers: Mapping[str, Float64Array]) -> dict[str, Float32Array]:
    return {name: values.astype(np.float32) for name, values in numbers.items()}


def _chooser(program: Program, choice: Tensor) -> Callable[[Results], Int32Array]:
    """How to find the choices that a node makes; its logits become a result."""
    node: Node = program.nodes[choice.index]
    logits, bias = node.inputs if node.op is ops.choose_experts else (None, None)
    if not isinstance(logits, Tensor) or not isinstance(bias, Constant | Weight):
        raise ModelError(f"experts are chosen by {node.op.name}, which importance can't be collected for")
    result = f"logits {logits.index}.{logits.output}"
    program.results[result] = logits
    numbers: Array = bias.value if isinstance(bias, Constant) else in_memory(bias).decode()

    def choose(results: Results) -> Int32Array:
        chosen: Int32Array = ops.choose_experts.meaning(results[result], numbers, **node.attributes)[0]
        return chosen

    return choose


def _of_experts(x: Array, choice: Int32Array, watched: Watched) -> tuple[Float64Array, Float64Array]:
    """Sums of squares [E, K] of x, [T, K] or [T, k * K], by the expert that each choice [T, k] took, and counts [E]."""
    count = choice.shape[1]
    each = x.reshape(len(x), -1, watched.columns)
    squares, counts = np.zeros((watched.experts, watched.columns)), np.zeros(watched.experts)
    for rank in range(count):
        rows = each[:, rank if each.shape[1] > 1 else 0].astype(np.float64)
        np.add.at(squares, choice[:, rank], rows * rows)
    np.add.at(counts, choice.reshape(-1), 1)
    return squares, counts


def collect(
    path: Path, text: str, *, dataset: str, size: int = 512, most: int | None = None,
    earlier: Importance | None = None, precision: str = "int8", threads: int | None = None, backend: str = "cpu",
    progress: Progress | None = None,
) -> Importance:  # fmt: skip
    """The importance matrix of a model over a text, read in windows of `size` tokens, at most `most` of them.

    dataset: the text's name. earlier: a matrix of other texts, to which is added. Errors as of `Watch`, `open_windows`
    and `windows_of`.
    """
    watch = Watch()
    with open_windows(
        path, size, precision=precision, threads=threads, name=backend, watch=watch.add_to, progress=progress
    ) as model:
        if earlier is not None:
            watch.begin_with(earlier)
        windows: Sequence[Int32Array] = list(windows_of(model.tokenizer, text, size, most)[1])
        for done, window in enumerate(windows):
            if progress is not None:
                progress("reading windows", done, len(windows))
            for _, results in model.run(window):
                watch.take(results)
        if progress is not None:
            progress("reading windows", len(windows), len(windows))
    known, texts = (0, ()) if earlier is None else (earlier.chunks, earlier.datasets)
    return watch.importance(known + len(windows), size, (*texts, dataset))
