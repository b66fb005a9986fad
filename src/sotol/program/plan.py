"""Where in one arena each node's result lives: memory is used again once its last reader has run."""

from collections.abc import Callable
from dataclasses import dataclass

from sotol.program import ops
from sotol.program.trace import Node, Program, Tensor

__all__ = ["Plan", "plan_memory"]

ALIGNMENT = 64  # a cache line, and the widest vector


@dataclass(frozen=True, slots=True)
class Plan:
    """offsets[i]: the byte offset of node i's result. A reshape has its input's."""

    offsets: tuple[int, ...]
    size: int


def plan_memory(program: Program, bytes_of: Callable[[Node], int]) -> Plan:
    """Place results first-fit, in order; nodes that are alive together never overlap."""
    owner: list[int] = []  # of node i's memory: itself, or what it reshapes
    for i, node in enumerate(program.nodes):
        source = node.inputs[0]
        owner.append(owner[source.index] if node.op is ops.reshape and isinstance(source, Tensor) else i)
    last_use = list(range(len(owner)))
    for i, node in enumerate(program.nodes):
        for x in node.inputs:
            if isinstance(x, Tensor):
                last_use[owner[x.index]] = i
    offsets, live, size = [0] * len(owner), list[tuple[int, int, int]](), 0  # live: (offset, end, last use)
    for i, node in enumerate(program.nodes):
        if owner[i] != i:
            offsets[i] = offsets[owner[i]]
            continue
        live = sorted(block for block in live if block[2] >= i)
        needed, at = -(-bytes_of(node) // ALIGNMENT) * ALIGNMENT, 0
        for start, end, _ in live:
            if start - at >= needed:
                break
            at = max(at, end)
        offsets[i], size = at, max(size, at + needed)
        live.append((at, at + needed, last_use[i]))
    return Plan(tuple(offsets), size)
