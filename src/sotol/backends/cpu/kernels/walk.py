"""How threads walk a tape together: no barrier, only counts of pieces.

The ops of a phase do not depend on each other: a thread takes pieces of all of them before it waits for any. Every op
has a line of 64 bytes with two words, each the step's number in the upper half: `next`, the pieces handed out,
and `done`, the pieces finished. A thread takes pieces of an op until none is left, waits until all are done and goes
on; so a thread that comes late, or that the system put aside between two pieces, holds up nobody, and a tape runs
as fast with sleeping helpers as with none. Words of an older step tell a straggler that its step is over.
"""

from numba import njit

from sotol.backends.cpu.vectors.arguments import atomic_load, atomic_store, cycles, relax, run_kernel, yield_thread
from sotol.backends.cpu.vectors.simd import load_i64, store_i64

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


@njit(error_model="numpy")
def _take(tape: int, lines: int, op: int, step: int) -> int:
    """Do pieces of an op until none is left; how many it has, or -1."""
    return run_kernel(load_i64(tape + 24 * op), load_i64(tape + 24 * op + 8), lines + 64 * op, step)


@njit(error_model="numpy")
def _wait(word: int, pieces: int, step: int) -> bool:
    """Wait until so many pieces are done; False if the step is over."""
    spins = 0
    while True:
        done = atomic_load(word)
        if done >> 32 != step:
            return False
        if done & 0xFFFFFFFF == pieces:
            return True
        spins += 1
        if spins < SPINS:
            relax()
        else:
            yield_thread()


def walk(tape: int, lines: int, ops: int, step: int, times: int) -> int:
    """Take part in a step: ops triples (kernel, arguments, last of its phase) at tape.

    0 when the step is complete, -1 if it was over already.

    times: 0, or the address of ops + 1 words that receive the cycle counter before the first and after each op.
    """
    if times:
        store_i64(times, cycles())
    first = 0
    for i in range(ops):
        pieces = _take(tape, lines, i, step)
        if pieces < 0:
            return -1
        if load_i64(tape + 24 * i + 16):
            if not _wait(lines + 64 * i + 8, pieces, step):
                return -1
            for k in range(first, i):
                if not _wait(lines + 64 * k + 8, _take(tape, lines, k, step), step):
                    return -1
            first = i + 1
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
