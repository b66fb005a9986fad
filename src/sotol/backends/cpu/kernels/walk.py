"""How threads walk a tape together without a barrier.

The ops of a phase do not depend on each other, so a thread takes pieces of all of them before it waits for any. Each op
has two counters on a cache line of its own: `next`, the pieces handed out, and `done`, the pieces finished. A thread
takes pieces of an op until none is left, waits until all pieces are done, and goes on. So no thread waits for another
to arrive: one that wakes late, or that the system suspends between two pieces, delays nobody, and a step is as fast
with sleeping helpers as without any.

Every run of a tape has a number, its epoch, and the upper half of both counters is the epoch they belong to. A late
thread that still works on an earlier run sees a newer epoch there, and leaves. Epochs count all tapes of the process,
so two runs never have the same.
"""

from numba import njit

from sotol.backends.cpu.layout import CACHE_LINE, TAPE_ENTRY
from sotol.backends.cpu.vectors.arguments import (
    atomic_load,
    atomic_store,
    cycles,
    relax,
    restore_floats,
    run_kernel,
    use_standard_floats,
    yield_thread,
)
from sotol.backends.cpu.vectors.simd import load_i64, store_i64

SPINS = 2000  # before a waiting thread yields its core to other threads: about 50 us


def prepare(lines: int, ops: int, epoch: int, _4: int, _5: int) -> int:
    """Set all counters to 0 of a new epoch. Nothing that pieces() reads may change before this returns."""
    for i in range(ops):
        atomic_store(lines + CACHE_LINE * i + 8, epoch << 32)
        atomic_store(lines + CACHE_LINE * i, epoch << 32)
    return 0


def begin(team: int, epoch: int, record: int, _4: int, _5: int) -> int:
    """Give the helpers the record of a tape, and then its epoch, which starts them; epoch -1 ends their threads."""
    atomic_store(team + 8, record)
    atomic_store(team, epoch)
    return 0


@njit(error_model="numpy")
def _take(tape: int, lines: int, op: int, epoch: int) -> int:
    """Do pieces of an op until none is left; how many pieces it has, or -1 if the epoch is over."""
    entry = tape + TAPE_ENTRY * op
    return run_kernel(load_i64(entry), load_i64(entry + 8), lines + CACHE_LINE * op, epoch)


@njit(error_model="numpy")
def _wait(word: int, pieces: int, epoch: int) -> bool:
    """Spin, then yield, until all pieces of an op are done; False if the epoch is over."""
    spins = 0
    while True:
        done = atomic_load(word)
        if done >> 32 != epoch:
            return False
        if done & 0xFFFFFFFF == pieces:
            return True
        spins += 1
        if spins < SPINS:
            relax()
        else:
            yield_thread()


def walk(tape: int, lines: int, ops: int, epoch: int, times: int) -> int:
    """Take part in a run of a tape: 0 when all its ops are done, -1 if the epoch was over before.

    tape: for each op its kernel, its arguments, and whether it is the last of its phase: [ops, 3]. times: 0, or the
    address of ops + 1 words that receive the cycle counter before the first op and after each.
    """
    old = use_standard_floats()
    result = _walk(tape, lines, ops, epoch, times)
    restore_floats(old)
    return result


@njit(error_model="numpy")
def _walk(tape: int, lines: int, ops: int, epoch: int, times: int) -> int:
    if times:
        store_i64(times, cycles())
    first = 0
    for i in range(ops):
        pieces = _take(tape, lines, i, epoch)
        if pieces < 0:
            return -1
        if load_i64(tape + TAPE_ENTRY * i + 16):
            if not _wait(lines + CACHE_LINE * i + 8, pieces, epoch):
                return -1
            for k in range(first, i):
                if not _wait(lines + CACHE_LINE * k + 8, _take(tape, lines, k, epoch), epoch):
                    return -1
            first = i + 1
        if times:
            store_i64(times + 8 * (i + 1), cycles())
    return 0


def work(team: int, own: int, seen: int, patience: int, index: int) -> int:
    """What a helper thread runs: walks every tape that begins; returns the last epoch after `patience` idle yields.

    team: two words, the epoch (negative: stop) and the address of a record: tape, lines, ops, threads. The helpers with
    an index below threads - 1 take part. own: the helper's own word, 1 while it may use a record. It reads the record's
    address only after it has set this, so whoever replaces the record and then sees 0 can free the old one.
    """
    idle = 0
    use_standard_floats()
    while True:
        epoch = atomic_load(team)
        if epoch < 0:
            return epoch
        if epoch != seen:
            atomic_store(own, 1)
            record = atomic_load(team + 8)
            if index < load_i64(record + 24) - 1:
                _walk(load_i64(record), load_i64(record + 8), load_i64(record + 16), epoch, 0)
            atomic_store(own, 0)
            seen, idle = epoch, 0
            continue
        idle += 1
        if idle < SPINS:
            relax()
        elif idle < SPINS + patience:
            yield_thread()
        else:
            return seen
