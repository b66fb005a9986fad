"""When each node of a program runs, and where in one arena its result lives."""

from collections.abc import Callable
from typing import NamedTuple

from sotol.program import ops
from sotol.program.program import Node, Program, Tensor

__all__ = ["Plan", "phases", "plan_memory"]

ALIGNMENT = 64  # a cache line, and the widest vector


class Plan(NamedTuple):
    """offsets[i]: the byte offset of node i's result. A reshape has its input's."""

    offsets: tuple[int, ...]
    size: int


def phases(program: Program) -> list[int]:
    """The phase of each node, ascending: nodes of one phase do not read each other's results and may run at once."""
    numbers: list[int] = []
    current = 0
    for node in program.nodes:
        sources = [numbers[x.index] for x in node.inputs if isinstance(x, Tensor)]
        if node.op is ops.reshape:
            numbers.append(sources[0])  # no work: there when its source is
            continue
        if current in sources:
            current += 1
        numbers.append(current)
    return numbers


def plan_memory(program: Program, bytes_of: Callable[[Node], int]) -> Plan:
    """Place results first-fit, in order; nodes that are alive in the same phase never overlap.

    A result's memory is used again in the phase after its last reader's.
    """
    owner: list[int] = []  # of node i's memory: itself, or what it reshapes
    for i, node in enumerate(program.nodes):
        source = node.inputs[0]
        owner.append(owner[source.index] if node.op is ops.reshape and isinstance(source, Tensor) else i)
    phase = phases(program)
    last_use = list(phase)
    for i, node in enumerate(program.nodes):
        for x in node.inputs:
            if isinstance(x, Tensor):
                last_use[owner[x.index]] = max(last_use[owner[x.index]], phase[i])
    if owner:
        last_use[owner[-1]] = max(phase)  # the caller reads it
    offsets, live, size = [0] * len(owner), list[tuple[int, int, int]](), 0  # live: (offset, end, last use)
    for i, node in enumerate(program.nodes):
        if owner[i] != i:
            offsets[i] = offsets[owner[i]]
            continue
        live = sorted(block for block in live if block[2] >= phase[i])
        needed, at = -(-bytes_of(node) // ALIGNMENT) * ALIGNMENT, 0
        for start, end, _ in live:
            if start - at >= needed:
                break
            at = max(at, end)
        offsets[i], size = at, max(size, at + needed)
        live.append((at, at + needed, last_use[i]))
    return Plan(tuple(offsets), size)
