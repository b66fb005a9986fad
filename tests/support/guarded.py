"""Random small models on memory between pages that nobody may touch: whoever reads or writes beyond it dies.

All that kernels read and write is placed so that its last byte (or its first) is the last before such a page, filled
with NaN before. Logits must be the bits that the same model gives on ordinary memory.

    python -m tests.support.guarded SEED MODELS [SHORT]

says "held" and how many models ran. SHORT: "results", "cache", "panels" or "vectors", which get one number less than
they need: the proof that the guard sees that. A module of its own, since a crash must not take pytest with it.
"""

import ctypes
import mmap
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TypeVar
from unittest import mock

import numpy as np
import numpy.typing as npt
from tests.support.checkpoints import RUNNABLE, random_checkpoint
from tests.support.running import make_step

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.running import runner
from sotol.backends.cpu.running.lower import result_bytes
from sotol.formats.weights import Checkpoint, Weight
from sotol.models import ARCHITECTURES, trace_model
from sotol.program import ops
from sotol.program.program import Operand, Program, Tensor
from sotol.program.step import BLOCK_TOKENS, Limits, Step
from sotol.quant import ENCODINGS, Float32Array

Bytes = npt.NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)
SHORT = ("results", "cache", "panels", "vectors")


class Guard:
    """Gives memory between forbidden pages. at_end: whether its end is right before one, or its begin behind one."""

    def __init__(self, *, at_end: bool, short: str = "") -> None:
        self._at_end, self._short = at_end, short

    def room(self, sizes: Sequence[int], kind: str) -> tuple[Bytes, list[int]]:
        """One array over parts of these sizes in bytes, each between forbidden pages, and where they begin in it."""
        sizes = [size - 4 * (kind == self._short) for size in sizes]
        rooms = [-(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE for size in sizes]
        space = mmap.mmap(
            -1, sum(rooms) + mmap.PAGESIZE * (len(rooms) + 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        whole, at, starts = np.frombuffer(space, np.uint8), mmap.PAGESIZE, list[int]()
        forbid(whole, 0)
        for size, room in zip(sizes, rooms, strict=True):
            whole[at : at + room] = 0 if kind in {"cache", "inputs"} else 0xFF  # caches and step arrays begin as zeros
            starts.append(at + (room - size if self._at_end else 0))
            at += room
            forbid(whole, at)
            at += mmap.PAGESIZE
        return whole, starts

    def copy(self, values: npt.NDArray[Number], kind: str) -> npt.NDArray[Number]:
        """The same array in guarded memory."""
        whole, (start,) = self.room([values.nbytes], kind)
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        kept = min(len(data), len(whole) - mmap.PAGESIZE - start)
        whole[start : start + kept] = data[:kept]
        # A part that is too short ends within the forbidden page: only kernels go there.
        return whole[start : start + len(data)].view(values.dtype).reshape(values.shape)


def forbid(whole: Bytes, at: int) -> None:
    """Take the rights on a page away."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.mprotect(ctypes.c_void_p(whole.ctypes.data + at), ctypes.c_size_t(mmap.PAGESIZE), 0):
        raise OSError(ctypes.get_errno(), "mprotect")


def memory_in(guard: Guard) -> type:
    """The runner's memory, all of it guarded."""

    class Guarded(runner._Memory):
        def __init__(self, program: Program, limits: Limits, codec: str, packed: Mapping[str, Bytes]) -> None:
            super().__init__(program, limits, codec, {name: guard.copy(x, "panels") for name, x in packed.items()})
            self._arena, self._offsets = _results(guard, program, {"T": limits.tokens, "R": limits.rows})
            self._caches = {cache: guard.copy(x, "cache") for cache, x in self._caches.items()}
            self._span_sums = guard.copy(self._span_sums, "sums")
            self._finished = guard.copy(self._finished, "inputs")
            self._inputs = {name: guard.copy(x, "inputs") for name, x in self._inputs.items()}

        def vector(self, x: Operand) -> int:
            known = id(x) in self._vectors
            super().vector(x)
            if not known:
                name, values = self._vectors[id(x)]
                self._vectors[id(x)] = name, guard.copy(values, "vectors")
            return super().vector(x)

    return Guarded


def _results(guard: Guard, program: Program, limits: Mapping[str, int]) -> tuple[Bytes, tuple[int, ...]]:
    """Memory for the results, each apart from all others."""
    own = [i for i, node in enumerate(program.nodes) if node.op is not ops.reshape]
    whole, starts = guard.room([result_bytes(program.nodes[i], limits) for i in own], "results")
    places = dict(zip(own, starts, strict=True))
    for i, node in enumerate(program.nodes):
        source = node.inputs[0]
        if isinstance(source, Tensor) and i not in places:
            places[i] = places[source.index]
    return whole, tuple(places[i] for i in range(len(program.nodes)))


# ---- models and steps


def model(rng: random.Random) -> tuple[Checkpoint, int]:
    """A model of odd sizes, its matrices in random encodings where rows are whole blocks; and its context."""
    architecture = rng.choice(list(ARCHITECTURES))
    heads, kv_heads = rng.choice([(1, 1), (3, 3), (3, 1), (6, 2)])  # the groups that other tests have, too
    context = rng.choice([1, 15, 16, 17, 63, 65, 130, 300])
    sizes: dict[str, object] = {
        "block_count": 1,
        "context_length": context,
        "embedding_length": rng.choice([1, 16, 31, 64, 100, 256, 288]),
        "feed_forward_length": rng.choice([1, 17, 32, 92, 256, 320]),
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": (width := rng.choice([2, 8, 12, 16, 36, 64, 100, 128])),
    }
    if rng.random() < 0.3:
        sizes["rope.dimension_count"] = 2 * rng.randint(1, width // 2)
    if architecture == "gemma3":
        sizes |= {"attention.sliding_window": rng.choice([1, 7, 64]), "final_logit_softcapping": rng.choice([0.0, 9.0])}
    checkpoint = random_checkpoint(architecture, sizes, optional=rng.random() < 0.5, seed=rng.randrange(1000))
    weights = dict(checkpoint.weights)
    for name, weight in weights.items():
        if len(weight.shape) == 2:
            able = [e for e in RUNNABLE if weight.shape[1] % ENCODINGS[e].values == 0]
            weights[name] = Weight.from_values(name, weight.decode(), rng.choice(able))
    return checkpoint._replace(weights=weights), context


def steps_of(rng: random.Random, context: int) -> tuple[list[Step], Limits]:
    """Three steps of one to three sequences, up to the edges of the context, of blocks and of tiles."""
    count = rng.randint(1, 3)
    each = -(-context // BLOCK_TOKENS)
    blocks = rng.sample(range(count * each), count * each)
    tables = [blocks[s * each : (s + 1) * each] for s in range(count)]
    steps = []
    for _ in range(3):
        lengths = [min(context, rng.choice([1, 1, 2, 5, 15, 16, 17, 25])) for _ in range(count)]
        begins = [rng.choice([0, context - n]) for n in lengths]
        texts = [[rng.randrange(48) for _ in range(n)] for n in lengths]
        steps.append(make_step(texts, begins, tables, range(sum(lengths))))
    most = max(len(step.tokens) for step in steps)
    return steps, Limits(most, count, most, context, count * each)


def run(program: Program, steps: Sequence[Step], limits: Limits, **options: str) -> list[Float32Array]:
    with closing(CpuRunner(program, limits, threads=2, **options)) as backend:  # type: ignore[arg-type]
        return [backend.run(step).copy() for step in steps]


def case(rng: random.Random, short: str = "") -> None:
    """One model on guarded memory and on ordinary memory; prints what it is in case that it dies."""
    checkpoint, context = model(rng)
    steps, limits = steps_of(rng, context)
    options = {"precision": rng.choice(["int8", "f32"]), "codec": rng.choice(["f16", "f32"])}
    sys.stdout.write(f"{dict(checkpoint.metadata)} {options} {limits}\n")
    sys.stdout.flush()
    program = trace_model(checkpoint, context)
    want = run(program, steps, limits, **options)
    with mock.patch.object(runner, "_Memory", memory_in(Guard(at_end=bool(short) or rng.random() < 0.7, short=short))):
        got = run(program, steps, limits, **options)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(mine.view(np.int32), theirs.view(np.int32))


def main() -> None:
    seed, models, short = int(sys.argv[1]), int(sys.argv[2]), "".join(sys.argv[3:])
    rng = random.Random(seed)
    for _ in range(models):
        case(rng, short)
    sys.stdout.write(f"held: {models} models\n")


if __name__ == "__main__":
    main()
