"""The block pool against a plain reference count."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sotol.kv.pool import BlockPool


class PoolMachine(RuleBasedStateMachine):
    """take, share and release in any order, against a model that only counts."""

    @initialize(size=st.integers(0, 12))
    def start(self, size: int) -> None:
        self.pool, self.counts = BlockPool(size), [0] * size

    def free(self) -> list[int]:
        return [block for block, count in enumerate(self.counts) if not count]

    @rule(count=st.integers(-1, 14))
    def take(self, count: int) -> None:
        free = self.free()
        if not 0 <= count <= len(free):
            with pytest.raises(ValueError, match=f"can't take {count} blocks: {len(free)} of"):
                self.pool.take(count)
            return
        blocks = self.pool.take(count)
        assert blocks == free[:count]  # the lowest
        for block in blocks:
            self.counts[block] = 1

    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        if any(self.counts):
            block = data.draw(st.sampled_from([b for b, count in enumerate(self.counts) if count]))
            self.pool.share(block)
            self.counts[block] += 1

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if any(self.counts):
            block = data.draw(st.sampled_from([b for b, count in enumerate(self.counts) if count]))
            self.counts[block] -= 1
            assert self.pool.release(block) == self.counts[block]

    @rule(data=st.data())
    def what_nobody_has_is_refused(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from([-1, len(self.counts), *self.free()]))
        for call in (self.pool.share, self.pool.release):
            with pytest.raises(ValueError, match=f"block {block} is not taken"):
                call(block)

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        assert [self.pool.count(block) for block in range(self.pool.size)] == self.counts
        assert self.pool.free == len(self.free())


TestPool = PoolMachine.TestCase


def test_a_block_given_back_twice_is_refused() -> None:
    pool = BlockPool(2)
    (block,) = pool.take(1)
    pool.release(block)
    with pytest.raises(ValueError, match="is not taken"):
        pool.release(block)
    assert pool.take(2) == [0, 1]


def test_a_pool_has_no_negative_size() -> None:
    with pytest.raises(ValueError, match="a pool can't have -1 blocks"):
        BlockPool(-1)
