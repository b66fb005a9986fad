"""Memory plans of random programs: what is alive together never overlaps, and memory is used again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.support.checkpoints import random_checkpoint

from sotol.backends.cpu.running.lower import result_bytes
from sotol.formats.weights import Weight
from sotol.models import trace_model
from sotol.program import fuse, ops
from sotol.program.plan import ALIGNMENT, phases, plan_memory
from sotol.program.program import Node, Program, StepInput, Tensor


@st.composite
def programs(draw: st.DrawFn) -> tuple[Program, list[int]]:
    """Adds and reshapes of any earlier results, and a size in bytes for each node."""
    program = Program()
    table = Weight.from_values("table", np.zeros((4, 8), np.float32), "F32")
    values: list[Tensor] = [ops.embed(table, StepInput(program, "tokens", ("T",)))]
    sizes = [draw(st.integers(1, 1000))]
    for _ in range(draw(st.integers(0, 25))):
        x = draw(st.sampled_from(values))
        if draw(st.booleans()):
            values.append(x.reshape(*x.shape))
            sizes.append(sizes[x.index])
        else:
            values.append(x + draw(st.sampled_from(values)))
            sizes.append(draw(st.integers(1, 1000)))
    return program, sizes


def owner(program: Program, i: int) -> int:
    """Whose memory node i's result is."""
    node = program.nodes[i]
    source = node.inputs[0]
    return owner(program, source.index) if node.op is ops.reshape and isinstance(source, Tensor) else i


def lives(program: Program) -> dict[int, tuple[int, int]]:
    """Of each node with memory of its own: the phases in which it is computed and last read, by any name."""
    phase = phases(program)
    ends = {owner(program, i): phase[i] for i in range(len(program.nodes))}
    for i, node in enumerate(program.nodes):
        for x in node.inputs:
            if isinstance(x, Tensor):
                ends[owner(program, x.index)] = max(ends[owner(program, x.index)], phase[i])
    ends[owner(program, len(program.nodes) - 1)] = len(program.nodes)  # the caller reads it
    return {i: (phase[i], end) for i, end in ends.items()}


def check(program: Program, sizes: list[int]) -> int:
    """The plan's size, with all that must hold of it."""
    index = {id(node): i for i, node in enumerate(program.nodes)}
    plan = plan_memory(program, lambda node: sizes[index[id(node)]])
    assert len(plan.offsets) == len(program.nodes)
    living = lives(program)
    for i, offset in enumerate(plan.offsets):
        assert offset % ALIGNMENT == 0
        assert 0 <= offset <= plan.size - sizes[i]
        assert offset == plan.offsets[owner(program, i)]
    for i, (start, end) in living.items():
        for j, (other_start, other_end) in living.items():
            if i < j and start <= other_end and other_start <= end:
                apart = plan.offsets[i] + sizes[i] <= plan.offsets[j] or plan.offsets[j] + sizes[j] <= plan.offsets[i]
                assert apart, f"%{i} and %{j} overlap in\n{program}"
    return plan.size


@given(programs())
def test_a_phase_reads_only_what_earlier_ones_gave(drawn: tuple[Program, list[int]]) -> None:
    """So its nodes may run at once; a reshape is no work. And no phase is empty or begins needlessly."""
    program, _ = drawn
    phase = phases(program)
    working = [number for number, node in zip(phase, program.nodes, strict=True) if node.op is not ops.reshape]
    assert working == sorted(working)
    for i, node in enumerate(program.nodes):
        if node.op is not ops.reshape:
            assert all(phase[x.index] < phase[i] for x in node.inputs if isinstance(x, Tensor))
    for number in range(1, max(phase) + 1):
        first = phase.index(number)
        read = [phase[x.index] for x in program.nodes[first].inputs if isinstance(x, Tensor)]
        assert max(read) == number - 1


@given(programs())
def test_what_is_alive_together_never_overlaps(drawn: tuple[Program, list[int]]) -> None:
    check(*drawn)


def test_a_chain_needs_room_for_two() -> None:
    program = Program()
    table = Weight.from_values("table", np.zeros((4, 8), np.float32), "F32")
    x = ops.embed(table, StepInput(program, "tokens", ("T",)))
    for _ in range(20):
        x = ops.scale(x, factor=2.0)
    assert check(program, [64] * 21) == 128


def test_a_deep_model_needs_no_more_than_a_shallow_one() -> None:
    """Layers use the same memory, one after the other."""

    def size(layers: int) -> int:
        program = trace_model(random_checkpoint("llama", {"block_count": layers}), 64)
        dims = {"T": 16, "R": 4}

        def bytes_of(node: Node) -> int:
            return result_bytes(node, dims)

        program = fuse.quantize_inputs(program)
        check(program, [bytes_of(node) for node in program.nodes])
        return plan_memory(program, bytes_of).size

    assert size(2) == size(9)


def test_an_empty_program_needs_nothing() -> None:
    plan = plan_memory(Program(), lambda _node: 1)
    assert (plan.offsets, plan.size) == ((), 0)
