"""Phases and memory plans of random programs: concurrent nodes, live results, and reuse of memory."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.support.checkpoints import random_checkpoint
from tests.support.running import limits_for

from sotol.arrays import Array
from sotol.backends.cpu.running.lower import result_bytes
from sotol.formats.weights import Weight
from sotol.models import trace_model
from sotol.program import fuse, ops
from sotol.program.memory import Cache, Paged, State
from sotol.program.plan import ALIGNMENT, phases, plan_memory
from sotol.program.program import Node, Program, StepInput, Tensor, op

Sizes = list[tuple[int, ...]]  # of each node, of each of its results

WIDTH = 8
CACHES = [Cache(f"state.{i}", State((WIDTH,))) for i in range(3)]


@op("T N -> T N, T N", register=False)
def both(x: Array) -> tuple[Array, Array]:
    return x, -x


@op("T N, [N], step -> T N", register=False)
def look(x: Array, cache: Any, step: Any) -> Array:
    return np.asarray(x + cache.read(step).sum())


@op("T N, [N]!, step ->", register=False)
def put(x: Array, cache: Any, step: Any) -> None:
    cache.write(step, x[-1:])


@op("T N, [N], [N]!, step -> T N", register=False)
def carry(x: Array, cache: Any, other: Any, step: Any) -> Array:
    other.write(step, cache.read(step))
    return x


def start() -> tuple[Program, Tensor]:
    program = Program()
    table = Weight.from_values("table", np.zeros((4, WIDTH), np.float32), "F32")
    return program, ops.embed(table, StepInput(program, "tokens", ("T",)))


@st.composite
def programs(draw: st.DrawFn) -> tuple[Program, Sizes]:
    """Programs of adds, reshapes, ops of two results and ops on caches; the sizes of results in bytes."""
    program, first = start()
    step, values = StepInput(program, "step"), [first]
    size, cache = st.integers(1, 1000), st.sampled_from(CACHES)
    sizes: Sizes = [(draw(size),)]
    for _ in range(draw(st.integers(0, 25))):
        x: Tensor = draw(st.sampled_from(values))
        match draw(st.sampled_from(["reshape", "add", "both", "look", "put", "carry"])):
            case "reshape":
                values.append(x.reshape(*x.shape))
                sizes.append((sizes[x.index][x.output],))
            case "add":
                values.append(x + draw(st.sampled_from(values)))
            case "both":
                values.extend(both(x))  # type: ignore[arg-type]
            case "look":
                values.append(look(x, draw(cache), step))
            case "put":
                put(x, draw(cache), step)
            case _:
                values.append(carry(x, draw(cache), draw(cache), step))
        if len(sizes) < len(program.nodes):
            sizes.append(tuple(draw(size) for _ in program.nodes[-1].results))
    program.results = {f"x{i}": x for i, x in enumerate(draw(st.lists(st.sampled_from(values), max_size=3)))}
    return program, sizes


def owner(program: Program, i: int, output: int = 0) -> tuple[int, int]:
    """The (node, output) in whose memory a result of node i lies."""
    node = program.nodes[i]
    source = node.inputs[0]
    if node.op is ops.reshape and isinstance(source, Tensor):
        return owner(program, source.index, source.output)
    return i, output


def lives(program: Program) -> dict[tuple[int, int], tuple[int, int]]:
    """(node, output) -> the phases in which it is computed and last read, directly or reshaped."""
    phase = phases(program)
    ends = {
        owner(program, i, output): phase[i] for i, n in enumerate(program.nodes) for output in range(len(n.results))
    }
    for i, node in enumerate(program.nodes):
        for x in node.inputs:
            if isinstance(x, Tensor):
                key = owner(program, x.index, x.output)
                ends[key] = max(ends[key], phase[i])
    for x in program.results.values():
        ends[owner(program, x.index, x.output)] = len(program.nodes)  # the caller reads it
    return {(i, output): (phase[i], end) for (i, output), end in ends.items()}


def check(program: Program, sizes: Sizes) -> int:
    """Check everything that must hold for a plan; returns its size."""
    index = {id(node): i for i, node in enumerate(program.nodes)}
    plan = plan_memory(program, lambda node, output: sizes[index[id(node)]][output])
    assert [len(offsets) for offsets in plan.offsets] == [len(node.results) for node in program.nodes]
    living = lives(program)
    for i, offsets in enumerate(plan.offsets):
        for output, offset in enumerate(offsets):
            assert offset % ALIGNMENT == 0
            assert 0 <= offset <= plan.size - sizes[i][output]
            whose, which = owner(program, i, output)
            assert offset == plan.offsets[whose][which]
    places = [(key, plan.offsets[key[0]][key[1]], sizes[key[0]][key[1]], living[key]) for key in living]
    for number, (key, at, size, (start_, end)) in enumerate(places):
        for other, other_at, other_size, (other_start, other_end) in places[number + 1 :]:
            if start_ <= other_end and other_start <= end:
                apart = at + size <= other_at or other_at + other_size <= at
                assert apart, f"{key} and {other} overlap in\n{program}"
    return plan.size


def waits(program: Program, i: int, j: int) -> bool:
    """Whether node j, a later one, depends on node i, by a result or a cache."""
    first, second = program.nodes[i], program.nodes[j]
    reads = {owner(program, x.index, x.output)[0] for x in second.inputs if isinstance(x, Tensor)}
    writes = [set(node.caches(written=True)) for node in (first, second)]
    touches = [writes[n] | set(node.caches(written=False)) for n, node in enumerate((first, second))]
    return i in reads or bool(writes[0] & touches[1]) or bool(touches[0] & writes[1])


@given(programs())
def test_a_phase_needs_only_what_earlier_ones_did(drawn: tuple[Program, Sizes]) -> None:
    """Nodes of one phase are independent, except reshapes, which do no work. And no phase begins without need."""
    program, _ = drawn
    phase = phases(program)
    working = [i for i, node in enumerate(program.nodes) if node.op is not ops.reshape]
    numbers = [phase[i] for i in working]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(max(numbers) + 1))
    for place, j in enumerate(working):
        assert all(phase[i] < phase[j] for i in working[:place] if waits(program, i, j))
    for number in range(1, max(phase) + 1):
        first = next(i for i in working if phase[i] == number)
        assert any(phase[i] == number - 1 and waits(program, i, first) for i in working if i < first)


def test_layers_that_share_keys_wait_for_who_writes_them() -> None:
    """Two readers of one cache share a phase; the next writer waits for both."""
    program, x = start()
    q, cache, step = x.reshape("T", 1, WIDTH), Cache("kv.0", Paged(1, WIDTH, WIDTH)), StepInput(program, "step")
    ops.remember(q, q, cache, step)
    ops.attention(q, cache, step, scale=1.0)
    ops.attention(q, cache, step, scale=2.0)
    ops.remember(q, q, cache, step)
    ops.remember(q, q, Cache("kv.1", Paged(1, WIDTH, WIDTH)), step)
    assert phases(program) == [0, 0, 1, 2, 2, 3, 3]


@given(programs())
def test_what_is_alive_together_never_overlaps(drawn: tuple[Program, Sizes]) -> None:
    check(*drawn)


def test_a_chain_needs_room_for_two() -> None:
    program, x = start()
    for _ in range(20):
        x = ops.scale(x, factor=2.0)
    assert check(program, [(64,)] * 21) == 128


def test_each_result_of_a_node_has_a_place() -> None:
    program, x = start()
    pair: Any = both(x)
    program.results = {"sum": pair[0] + pair[1]}
    assert check(program, [(64,), (64, 200), (64,)]) == 64 + 64 + 256


def test_results_by_name_stay_until_the_end() -> None:
    program, x = start()
    y = ops.scale(x, factor=2.0)
    z = ops.scale(y, factor=2.0)
    ops.scale(z, factor=2.0)
    sizes: Sizes = [(64,)] * 4
    assert check(program, sizes) == 128
    program.results = {"early": x, "late": z}
    assert check(program, sizes) == 192


def test_a_deep_model_needs_no_more_than_a_shallow_one() -> None:
    """Layers reuse the same memory one after the other."""

    def size(layers: int) -> int:
        program = trace_model(random_checkpoint("llama", {"block_count": layers}), 64)
        limits = limits_for(program, 64)._replace(tokens=16, rows=4)

        def bytes_of(node: Node, output: int) -> int:
            return result_bytes(node.results[output], limits)

        program = fuse.quantize_inputs(program)
        check(program, [tuple(bytes_of(node, output) for output in range(len(node.results))) for node in program.nodes])
        return plan_memory(program, bytes_of).size

    assert size(2) == size(9)


def test_an_empty_program_needs_nothing() -> None:
    plan = plan_memory(Program(), lambda _node, _output: 1)
    assert (plan.offsets, plan.size) == ((), 0)
