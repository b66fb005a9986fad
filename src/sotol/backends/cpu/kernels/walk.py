"""How threads walk a tape together: no barrier, only counts of pieces.

Every op has a line of 64 bytes with two words, each the step's number in the upper half: `next`, the pieces handed out,
and `done`, the pieces finished. A thread takes pieces of an op until none is left, waits until all are done and goes
on; so a thread that comes late, or that the system put aside between two pieces, holds up nobody, and a tape runs
as fast with sleeping helpers as with none. Words of an older step tell a straggler that its step is over.
"""

from numba import njit

from sotol.backends.cpu.arguments import atomic_load, atomic_store, cycles, relax, run_kernel, yield_thread
from sotol.backends.cpu.simd import load_i64, store_i64

SPINS = 2000  # before a waiting thread offers its core to others: about 50 us


def prepare(lines: int, ops: int, step: int, _4: int, _5: int) -> int:
    """Set every op's words to the step. Nothing that pieces() reads may change before this returns."""
    for i in range(ops):
        atomic_store(lines + 64 * i + 8, step << 32)
        atomic_store(lines + 64 * i, step << 32)
    return 0


def begin(team: int, step: int, _3: int, _4: int, _5: int) -> int:
    """Tell the helpers the step's number; -1 ends their work."""
    atomic_store(team, step)
    return 0


def walk(tape: int, lines: int, ops: int, step: int, times: int) -> int:
    """Take part in a step: ops pairs (kernel, arguments) at tape. 0 when it is complete, -1 if it was over already.

    times: 0, or the address of ops + 1 words that receive the cycle counter before the first and after each op.
    """
    if times:
        store_i64(times, cycles())
    for i in range(ops):
        line = lines + 64 * i
        pieces = run_kernel(load_i64(tape + 16 * i), load_i64(tape + 16 * i + 8), line, step)
        if pieces < 0:
            return -1
        spins = 0
        while True:
            done = atomic_load(line + 8)
            if done >> 32 != step:
                return -1
            if done & 0xFFFFFFFF == pieces:
                break
            spins += 1
            if spins < SPINS:
                relax()
            else:
                yield_thread()
        if times:
            store_i64(times + 8 * (i + 1), cycles())
    return 0


_walk = njit(error_model="numpy")(walk)


def work(team: int, seen: int, patience: int, _4: int, _5: int) -> int:
    """A helper's life: walk each step that begins; return the last step seen after `patience` yields without one.

    team: words: the step's number (negative: stop), then tape, lines, ops.
    """
    idle = 0
    while True:
        step = atomic_load(team)
        if step < 0:
            return step
        if step != seen:
            _walk(load_i64(team + 8), load_i64(team + 16), load_i64(team + 24), step, 0)
            seen, idle = step, 0
            continue
        idle += 1
        if idle < SPINS:
            relax()
        elif idle < SPINS + patience:
            yield_thread()
        else:
            return seen
