"""The order of eviction, against a list that is sorted each time."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sotol.kv.ages import WORTH, Ages

things = st.integers(0, 8)


class AgesMachine(RuleBasedStateMachine):
    """Things are added, used and removed."""

    @initialize()
    def start(self) -> None:
        self.ages = Ages[int]()
        self.now = 0
        self.times: dict[int, tuple[int, bool]] = {}

    def use(self, thing: int, dear: bool) -> None:
        self.now += 1
        self.times[thing] = self.now, dear

    @rule(thing=things, dear=st.booleans())
    def add(self, thing: int, dear: bool) -> None:
        self.ages.add(thing, dear=dear)
        self.use(thing, dear)

    @rule(thing=things, times=st.sampled_from([1, 30, 250]))
    def touch(self, thing: int, times: int) -> None:
        for _ in range(times):
            self.ages.touch(thing)
            if thing in self.times:
                self.use(thing, self.times[thing][1])

    @rule(thing=things)
    def discard(self, thing: int) -> None:
        self.ages.discard(thing)
        self.times.pop(thing, None)

    @invariant()
    def the_oldest_goes_first(self) -> None:
        assert len(self.ages) == len(self.times)
        if not self.times:
            with pytest.raises(KeyError, match="nothing to give up"):
                self.ages.oldest()
            return
        price = {thing: (self.now - since) / (WORTH if dear else 1) for thing, (since, dear) in self.times.items()}
        oldest = self.ages.oldest()
        assert price[oldest] == max(price.values())


TestAges = AgesMachine.TestCase


def test_what_many_use_outlives_what_one_used() -> None:
    ages = Ages[str]()
    ages.add("dear", dear=True)
    for i in range(99):
        ages.add(f"cheap {i}")
    for i in range(98):
        assert ages.oldest() == f"cheap {i}"
        ages.discard(f"cheap {i}")
    assert ages.oldest() == "dear"  # its age is 99, the cheap one's is 0


def test_what_many_used_long_ago_goes_before_what_one_used_just_now() -> None:
    ages = Ages[str]()
    ages.add("dear", dear=True)
    ages.add("cheap")
    for _ in range(150):
        ages.touch("cheap")
    assert ages.oldest() == "dear"
