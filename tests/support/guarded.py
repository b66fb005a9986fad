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
from tests.support.checkpoints import NEEDED, RUNNABLE, has_states, is_matrix, odd_states, random_checkpoint
from tests.support.layers import Layer, Mixer, chunked, mixers_of, plan_of, program_of, step_of
from tests.support.running import make_step

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.running import runner
from sotol.backends.cpu.running.lower import result_bytes
from sotol.backends.cpu.running.memory import Codecs, Memory
from sotol.formats.weights import Checkpoint, Weight
from sotol.models import ARCHITECTURES, trace_model
from sotol.program import ops
from sotol.program.fuse import quantize_inputs
from sotol.program.memory import Group, Paged, group_caches
from sotol.program.plan import Plan
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

    class Guarded(Memory):
        def __init__(
            self,
            program: Program,
            plan: Plan,
            limits: Limits,
            groups: Sequence[Group],
            codecs: Codecs,
            packed: Mapping[int, Bytes],
        ) -> None:
            panels = {number: guard.copy(x, "panels") for number, x in packed.items()}
            super().__init__(program, plan, limits, groups, codecs, panels)
            self._arena, self._offsets = _results(guard, program, limits)
            _move(self, guard)

        def attention_scratch(self, number: int) -> tuple[int, int]:
            if number not in self._scratch:
                super().attention_scratch(number)
                sums, finished = self._scratch[number]
                self._scratch[number] = guard.copy(sums, "sums"), guard.copy(finished, "inputs")
            return super().attention_scratch(number)

        def sorted_choices(self, node: int, count: int) -> tuple[int, int]:
            if node not in self._sorted:
                super().sorted_choices(node, count)
                order, runs = self._sorted[node]
                self._sorted[node] = guard.copy(order, "inputs"), guard.copy(runs, "inputs")
            return super().sorted_choices(node, count)

        def vector(self, x: Operand) -> int:
            if id(x) not in self._vectors:
                super().vector(x)
                name, values = self._vectors[id(x)]
                self._vectors[id(x)] = name, guard.copy(values, "vectors")
            return super().vector(x)

    return Guarded


def _move(memory: Memory, guard: Guard) -> None:
    """Caches and the arrays of steps, to guarded memory."""
    memory._caches = {cache: guard.copy(x, "cache") for cache, x in memory._caches.items()}
    memory._inputs = {name: guard.copy(x, "inputs") for name, x in memory._inputs.items()}
    for tables in memory._tables:
        for name in ("blocks", "firsts", "slots"):
            setattr(tables, name, guard.copy(getattr(tables, name), "inputs"))
    memory._tiles.arrays = {name: guard.copy(x, "inputs") for name, x in memory._tiles.arrays.items()}
    for work in memory._work.values():
        work.arrays = {name: guard.copy(x, "inputs") for name, x in work.arrays.items()}


def _results(guard: Guard, program: Program, limits: Limits) -> tuple[Bytes, tuple[tuple[int, ...], ...]]:
    """Memory for the results, each apart from all others."""
    own = [(i, result) for i, node in enumerate(program.nodes) if node.op is not ops.reshape for result in node.results]
    whole, starts = guard.room([result_bytes(result, limits) for _, result in own], "results")
    places: list[tuple[int, ...]] = [() for _ in program.nodes]
    for (i, _), start in zip(own, starts, strict=True):
        places[i] += (start,)
    for i, node in enumerate(program.nodes):
        source = node.inputs[0]
        if node.op is ops.reshape and isinstance(source, Tensor):
            places[i] = (places[source.index][source.output],)
    return whole, tuple(places)


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
    if rng.random() < 0.3 and architecture != "deepseek2":  # whose heads have widths of their own
        sizes["rope.dimension_count"] = 2 * rng.randint(1, width // 2)
    if "expert_count" in NEEDED.get(architecture, {}):
        count = rng.choice([1, 3, 8, 20])
        sizes |= {"expert_count": count, "expert_used_count": rng.randint(1, min(count, 9))}
        sizes |= {"expert_feed_forward_length": rng.choice([1, 17, 32, 256])}
    if has_states(architecture):
        sizes |= odd_states(rng, architecture)
    if architecture == "gemma3":
        sizes |= {"attention.sliding_window": rng.choice([1, 7, 64]), "final_logit_softcapping": rng.choice([0.0, 9.0])}
    checkpoint = random_checkpoint(architecture, sizes, optional=rng.random() < 0.5, seed=rng.randrange(1000))
    weights = dict(checkpoint.weights)
    for name, weight in weights.items():
        if is_matrix(weight):
            able = [e for e in RUNNABLE if weight.shape[-1] % ENCODINGS[e].values == 0]
            weights[name] = Weight.from_values(name, weight.decode(), rng.choice(able))
    return checkpoint._replace(weights=weights), context


def steps_of(rng: random.Random, context: int, groups: int) -> tuple[list[Step], Limits]:
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
        steps.append(make_step(texts, begins, tables, range(sum(lengths)), groups=groups))
    most = max(len(step.tokens) for step in steps)
    return steps, Limits(most, count, most, context, (count * each,) * groups)


def layers(rng: random.Random) -> tuple[Program, list[Step], Limits]:
    """Attention over caches of odd widths, and a state, beside each other; and steps over three texts."""
    some = []
    for _ in range(rng.randint(1, 3)):
        heads, kv_heads = rng.choice([(1, 1), (3, 3), (3, 1)])
        key, value, latent = rng.choice([1, 9, 16, 20, 40, 80]), rng.choice([1, 9, 16, 20, 40]), rng.random() < 0.3
        value = min(value, key) if latent else value
        some.append(Layer(heads, Paged(kv_heads, key, value, rng.choice([0, 0, 7, 20, 64]), latent)))
    program = program_of(some, rng.randrange(1000), state=rng.choice([0, 1, 16, 40, 65]))
    plan = plan_of(program, np.random.default_rng(rng.randrange(1000)), rng.choices([1, 16, 17, 63, 100, 260], k=3))
    return program, [step_of(plan, spans, 0) for spans in chunked(plan, rng.choice([24, 50, 130]))], plan.limits


def mixers(rng: random.Random) -> tuple[Program, list[Step], Limits]:
    """Recurrent layers of odd sizes beside each other, and steps over three texts."""
    some = []
    for kind in rng.choices(["silu", "none", "delta", "tiled", "scan"], k=rng.randint(1, 4)):
        values, keys, taps = rng.choice([1, 5, 16, 33, 70]), rng.choice([1, 3, 16, 21]), rng.randint(2, 8)
        some.append(Mixer(kind, values, keys, rng.randint(1, 3), rng.randint(1, 3), taps))
    program = mixers_of(some, rng.randrange(1000))
    plan = plan_of(program, np.random.default_rng(rng.randrange(1000)), rng.choices([1, 2, 9, 30], k=3))
    return program, [step_of(plan, spans) for spans in chunked(plan, rng.choice([1, 7, 30]))], plan.limits


def run(program: Program, steps: Sequence[Step], limits: Limits, codecs: Codecs) -> list[Float32Array]:
    """All results of all steps."""
    with closing(CpuRunner(program, limits, threads=2, codecs=codecs)) as backend:
        return [rows.copy() for step in steps for rows in backend.run(step).values()]


def case(rng: random.Random, short: str = "") -> None:
    """One model on guarded memory and on ordinary memory; prints what it is in case that it dies."""
    precision, codecs = rng.choice(["int8", "f32"]), Codecs(*rng.choice([("f16", "f16"), ("f32", "f32")]))
    if not short and rng.random() < 0.25:
        program, steps, limits = rng.choice([layers, mixers])(rng)
        about = str(program)
    else:
        checkpoint, context = model(rng)
        program, about = trace_model(checkpoint, context), str(dict(checkpoint.metadata))
        steps, limits = steps_of(rng, context, len(group_caches(program.caches())))
        program = quantize_inputs(program) if precision == "int8" else program
    sys.stdout.write(f"{about} {precision} {codecs} {limits}\n")
    sys.stdout.flush()
    want = run(program, steps, limits, codecs)
    with mock.patch.object(runner, "Memory", memory_in(Guard(at_end=bool(short) or rng.random() < 0.7, short=short))):
        got = run(program, steps, limits, codecs)
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
