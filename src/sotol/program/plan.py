"""In which phase each node of a program runs, and where its results lie in one arena of memory."""

from collections.abc import Callable
from typing import NamedTuple

from sotol.program import ops
from sotol.program.memory import Cache
from sotol.program.program import Node, Program, Tensor

__all__ = ["Plan", "phases", "plan_memory"]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


class Plan(NamedTuple):
    """When and where each node's results are."""

    phases: list[int]
    offsets: tuple[tuple[int, ...], ...]  # bytes into the arena, of each result (a reshape shares its input's)
    size: int  # of the arena, in bytes


def phases(program: Program) -> list[int]:
    """The phase of each node, ascending: nodes of one phase may run concurrently.

    They do not read each other's results, and if one writes a cache, no other node of the phase reads or writes it.
    """
    numbers: list[int] = []
    written: dict[Cache, int] = {}  # the phase of the last write
    touched: dict[Cache, int] = {}  # the phase of the last read or write
    current = 0
    for node in program.nodes:
        sources = [numbers[x.index] for x in node.inputs if isinstance(x, Tensor)]
        if node.op is ops.reshape:
            numbers.append(sources[0])  # no work: done as soon as its source is
            continue
        reads, writes = node.caches(written=False), node.caches(written=True)
        waits_for = [*sources, *(written.get(c, -1) for c in reads), *(touched.get(c, -1) for c in writes)]
        if current in waits_for:
            current += 1
        numbers.append(current)
        for cache in writes:
            written[cache] = touched[cache] = current
        for cache in reads:
            touched[cache] = current
    return numbers


def plan_memory(program: Program, bytes_of: Callable[[Node, int], int]) -> Plan:
    """Place results first-fit, in order; results that are live in the same phase never overlap.

    bytes_of(node, output): the size of a result. Its memory is free again in the phase after its last reader's.
    """
    owner = _owners(program)
    phase = phases(program)
    last_use = _last_uses(program, owner, phase)
    offsets: list[tuple[int, ...]] = [()] * len(owner)
    live, size = list[tuple[int, int, int]](), 0  # live: (offset, end, last use)
    for i, node in enumerate(program.nodes):
        if owner[i] != i:
            source = node.inputs[0]
            assert isinstance(source, Tensor)
            offsets[i] = (offsets[source.index][source.output],)
            continue
        places = []
        for output in range(len(node.results)):
            live = sorted(block for block in live if block[2] >= phase[i])
            needed, at = -(-bytes_of(node, output) // ALIGNMENT) * ALIGNMENT, 0
            for start, end, _ in live:
                if start - at >= needed:
                    break
                at = max(at, end)
            places.append(at)
            size = max(size, at + needed)
            live.append((at, at + needed, last_use[i]))
        offsets[i] = tuple(places)
    return Plan(phase, tuple(offsets), size)


def _owners(program: Program) -> list[int]:
    """The node in whose memory each node's results lie: itself, or the node that it reshapes."""
    owner: list[int] = []
    for i, node in enumerate(program.nodes):
        source = node.inputs[0] if node.inputs else None
        owner.append(owner[source.index] if node.op is ops.reshape and isinstance(source, Tensor) else i)
    return owner


def _last_uses(program: Program, owner: list[int], phase: list[int]) -> list[int]:
    """The phase in which each node is last read; results of the program stay live to the end."""
    last_use = list(phase)
    for i, node in enumerate(program.nodes):
        for x in node.inputs:
            if isinstance(x, Tensor):
                last_use[owner[x.index]] = max(last_use[owner[x.index]], phase[i])
    for x in program.results.values():
        last_use[owner[x.index]] = max(phase)
    return last_use
