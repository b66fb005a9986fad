"""The pool of blocks against a set of free ids."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sotol.kv.pool import BlockPool


class PoolMachine(RuleBasedStateMachine):
    """Takes and releases in any order, as a model that only counts."""

    @initialize(count=st.integers(0, 12))
    def start(self, count: int) -> None:
        self.count, self.pool = count, BlockPool(count)
        self.held: list[list[int]] = []

    @rule(count=st.integers(0, 14))
    def take(self, count: int) -> None:
        free = self.pool.free
        blocks = self.pool.take(count)
        assert len(blocks) == (count if count <= free else 0)
        self.held.append(blocks)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            self.pool.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @rule(data=st.data())
    def release_what_is_not_held(self, data: st.DataObject) -> None:
        free = set(range(self.count)) - {b for blocks in self.held for b in blocks}
        block = data.draw(st.sampled_from([-1, self.count, *sorted(free)]))
        with pytest.raises(ValueError, match=f"block {block} is not taken"):
            self.pool.release([block])

    @invariant()
    def every_block_is_in_one_place(self) -> None:
        held = [b for blocks in self.held for b in blocks]
        assert len(held) == len(set(held))
        assert set(held) <= set(range(self.count))
        assert self.pool.free == self.count - len(held)


TestPool = PoolMachine.TestCase


def test_a_block_given_back_twice_is_refused() -> None:
    pool = BlockPool(2)
    (block,) = pool.take(1)
    with pytest.raises(ValueError, match="is not taken"):
        pool.release([block, block])
    assert sorted(pool.take(2)) == [0, 1]
