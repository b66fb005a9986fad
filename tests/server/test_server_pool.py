"""What a pool loads and unloads, and when: by hand, and on schedules drawn at random, in virtual time."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.virtual_time import run_virtually

from sotol.errors import SotolError
from sotol.server.pool import Closed, Lease, Pool, Slot, Source


class World:
    """Things that take memory, how long loading takes, and what became of them."""

    def __init__(self, most: int | None = None, seconds: float = 10.0) -> None:
        self.pool: Pool[str] = Pool(most, self)
        self.most, self.seconds = most, seconds
        self.there: dict[str, int] = {}  # bytes
        self.used: Counter[str] = Counter()
        self.failing: set[str] = set()
        self.events: list[tuple[str, ...]] = []
        self.loading = 0
        self.sizes: dict[str, int] = {}

    def add(self, name: str, size: int = 1, keep: float = math.inf) -> Slot[str]:
        self.sizes[name] = size

        async def load() -> str:
            self.loading += 1
            assert self.loading == 1, "two are loaded at a time"
            self.there[name] = size
            assert self.most is None or sum(self.there.values()) <= self.most, "too much memory"
            try:
                await asyncio.sleep(self.seconds)
                if name in self.failing:
                    del self.there[name]
                    raise SotolError(f"{name} is broken")
            except asyncio.CancelledError:
                self.there.pop(name, None)
                raise
            finally:
                self.loading -= 1
            return name

        async def unload(thing: str) -> None:
            assert thing == name
            assert not self.used[name], "it is in use"
            await asyncio.sleep(1.0)
            del self.there[name]

        async def weigh() -> int:
            await asyncio.sleep(0.1)
            return size

        return self.pool.add(name, Source(load, unload, weigh, keep))

    async def use(self, slot: Slot[str], seconds: float, keep: float | None = None) -> str:
        lease = await self.pool.open(slot, keep)
        self.used[slot.name] += 1
        try:
            assert lease.thing == slot.name
            assert slot.name in self.there
            await asyncio.sleep(seconds)
            assert slot.name in self.there
        finally:
            self.used[slot.name] -= 1
            lease.close()
            lease.close()  # once more does nothing
        return slot.name

    def loaded(self, name: str, seconds: float) -> None:
        assert seconds >= 0
        self.events.append(("loaded", name))

    def failed(self, name: str) -> None:
        self.events.append(("failed", name))

    def unloaded(self, name: str, reason: str) -> None:
        self.events.append(("unloaded", name, reason))


def started(*coroutines: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(coroutine) for coroutine in coroutines]


def test_many_at_first_load_once() -> None:
    async def scenario() -> None:
        world = World()
        slot = world.add("a")
        assert slot.status == "unloaded"
        tasks = started(*(world.use(slot, 5) for _ in range(20)))
        await asyncio.sleep(1)
        assert (slot.status, slot.users) == ("loading", 0)
        assert await asyncio.gather(*tasks) == ["a"] * 20
        assert world.events == [("loaded", "a")]
        assert (slot.status, slot.users, slot.expires) == ("ready", 0, None)

    run_virtually(scenario())


def test_idle_things_go() -> None:
    async def scenario() -> None:
        world = World()
        slot = world.add("a", keep=60)
        await world.use(slot, 5)
        now = asyncio.get_running_loop().time()
        assert (slot.used, slot.expires) == (now, now + 60)
        await asyncio.sleep(59)
        await world.use(slot, 100)  # longer than it is kept without use
        await asyncio.sleep(59)
        assert slot.status == "ready"
        await asyncio.sleep(3)
        assert (slot.status, world.there) == ("unloaded", {})
        await world.use(slot, 1)
        assert world.events == [("loaded", "a"), ("unloaded", "a", "idle"), ("loaded", "a")]

    run_virtually(scenario())


def test_how_long_a_use_keeps_it() -> None:
    async def scenario() -> None:
        world = World()
        slot = world.add("a")
        await world.use(slot, 1, keep=5)
        await asyncio.sleep(7)
        assert world.there == {}
        await asyncio.gather(world.use(slot, 1, keep=0), world.use(slot, 50, keep=0))
        await asyncio.sleep(2)
        assert world.there == {}
        await world.use(slot, 1)
        await asyncio.sleep(10**6)
        assert slot.status == "ready"
        assert [event[-1] for event in world.events] == ["a", "idle", "a", "asked", "a"]

    run_virtually(scenario())


def test_who_comes_while_it_goes_waits_for_it_again() -> None:
    async def scenario() -> None:
        world = World()
        slot = world.add("a", keep=10)
        await world.use(slot, 1)
        await asyncio.sleep(10.5)  # unloading takes a second
        assert "a" in world.there
        assert slot.thing is None
        assert await world.use(slot, 1) == "a"
        assert [event[0] for event in world.events] == ["loaded", "unloaded", "loaded"]

    run_virtually(scenario())


def test_released() -> None:
    async def scenario() -> None:
        world = World()
        slot = world.add("a")
        world.pool.release(slot)  # it is not there
        [task] = started(world.use(slot, 30))
        await asyncio.sleep(15)
        world.pool.release(slot)
        await asyncio.sleep(5)
        assert slot.status == "ready"
        await task
        await asyncio.sleep(2)
        assert world.there == {}
        await world.use(slot, 1)
        world.pool.release(slot)
        await asyncio.sleep(2)
        assert world.there == {}

    run_virtually(scenario())


def test_memory_for_another() -> None:
    """What is not used goes, that which was used longest ago first; what is in use is waited for."""

    async def scenario() -> None:
        world = World(most=2)
        a, b, c = (world.add(name) for name in "abc")
        await world.use(a, 1)
        await world.use(b, 1)
        await world.use(a, 1)
        assert set(world.there) == {"a", "b"}
        await world.use(c, 1)
        assert world.events[-2:] == [("unloaded", "b", "memory"), ("loaded", "c")]
        busy = started(world.use(a, 500), world.use(c, 300))
        await asyncio.sleep(1)
        begin = asyncio.get_running_loop().time()
        [waiting] = started(world.use(b, 1))
        await asyncio.sleep(1)
        late = started(world.use(a, 1), world.use(a, 1))  # of the one that was used longest ago, which is to go
        assert await waiting == "b"
        assert asyncio.get_running_loop().time() - begin >= 498
        assert await asyncio.gather(*busy, *late) == ["a", "c", "a", "a"]

    run_virtually(scenario())


def test_two_small_ones_for_a_large_one() -> None:
    async def scenario() -> None:
        world = World(most=3)
        a, b, c = world.add("a"), world.add("b"), world.add("c", size=3)
        await asyncio.gather(world.use(a, 1), world.use(b, 1))
        await world.use(c, 1)
        assert world.there == {"c": 3}
        await asyncio.gather(world.use(a, 1), world.use(b, 1))
        assert world.there == {"a": 1, "b": 1}

    run_virtually(scenario())


def test_one_that_takes_what_is_free() -> None:
    """It is asked again once there is room."""

    async def scenario() -> None:
        world = World(most=4)
        a, b = world.add("a", size=2), world.add("b", size=2)
        await world.use(a, 1)

        async def load() -> str:
            world.there["greedy"] = 4 - sum(world.there.values())
            return "greedy"

        async def unload(thing: str) -> None:
            del world.there[thing]

        async def weigh() -> int:
            return max(3, 4 - sum(world.there.values()))

        greedy = world.pool.add("greedy", Source(load, unload, weigh))
        await world.use(greedy, 1)
        assert (world.there, greedy.size) == ({"greedy": 4}, 4)
        await world.use(b, 1)
        assert world.there == {"b": 2}

    run_virtually(scenario())


def test_one_that_never_fits() -> None:
    async def scenario() -> None:
        world = World(most=2)
        a, b = world.add("a"), world.add("b", size=3)
        await world.use(a, 1)
        with pytest.raises(SotolError, match="b takes 3 bytes of memory, more than there may be: 2"):
            await world.use(b, 1)
        assert (b.status, b.error, set(world.there)) == (
            "failed",
            "b takes 3 bytes of memory, more than there may be: 2",
            {"a"},
        )

    run_virtually(scenario())


def test_sizes_of_models_are_told_in_megabytes() -> None:
    async def scenario() -> None:
        world = World(most=600_000_000)
        large = world.add("large", size=646_617_912)
        with pytest.raises(SotolError, match=r"large takes 646\.6 MB of memory, more than there may be: 600\.0 MB"):
            await world.use(large, 1)

    run_virtually(scenario())


def test_one_that_stays() -> None:
    """What was there from the beginning is not unloaded, and takes memory."""

    async def scenario() -> None:
        world = World(most=3)
        fixed: Slot[str] = world.pool.add("fixed", None, "fixed")
        fixed.size = 2
        a, b, large = world.add("a"), world.add("b"), world.add("large", size=2)
        for slot in (a, b, a):
            await world.use(slot, 1)
        with pytest.raises(SotolError, match="large takes 2 bytes"):
            await world.use(large, 1)
        lease = await world.pool.open(fixed)
        world.pool.release(fixed)
        lease.close()
        await asyncio.sleep(10)
        assert fixed.status == "ready"
        await world.pool.close()
        assert (fixed.thing, world.there) == ("fixed", {})

    run_virtually(scenario())


def test_failures() -> None:
    """One error for each who waits; another try may succeed."""

    async def scenario() -> None:
        world = World(most=1)
        slot, other = world.add("a"), world.add("b")
        world.failing.add("a")
        results = await asyncio.gather(*(world.use(slot, 1) for _ in range(5)), return_exceptions=True)
        assert [str(error) for error in results] == ["a is broken"] * 5
        assert len(set(map(id, results))) == 5
        assert (slot.status, slot.error, slot.size) == ("failed", "a is broken", 0)
        await world.use(other, 1)
        world.failing.clear()
        [task] = started(world.use(slot, 1))
        await asyncio.sleep(2)
        assert (slot.status, slot.error) == ("loading", None)
        assert await task == "a"
        assert world.events == [("failed", "a"), ("loaded", "b"), ("unloaded", "b", "memory"), ("loaded", "a")]

    run_virtually(scenario())


def test_who_leaves_while_waiting() -> None:
    async def scenario() -> None:
        world = World()
        a, b = world.add("a", keep=5), world.add("b")
        tasks = started(world.use(a, 1), world.use(b, 1))
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(20)
        assert world.events == [("loaded", "a"), ("unloaded", "a", "idle")]  # and b never began
        assert b.status == "unloaded"

    run_virtually(scenario())


def test_who_leaves_in_the_moment_when_it_comes() -> None:
    async def scenario() -> None:
        world = World()
        slot = world.add("a", keep=5)
        task = asyncio.ensure_future(world.pool.open(slot))
        users: list[int] = []

        def leave(name: str, seconds: float) -> None:
            del name, seconds
            users.append(slot.users)
            task.cancel()

        world.loaded = leave  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (users, slot.users) == ([1], 0)
        await asyncio.sleep(10)
        assert world.there == {}

    run_virtually(scenario())


def test_the_end() -> None:
    async def scenario() -> None:
        world = World(most=1)
        a, b = world.add("a"), world.add("b")
        lease = await world.pool.open(a)
        [waiting] = started(world.use(b, 1))
        await asyncio.sleep(1)
        await world.pool.close()
        with pytest.raises(Closed):
            await waiting
        assert (world.there, a.status, b.status) == ({}, "unloaded", "unloaded")
        lease.close()
        with pytest.raises(Closed):
            await world.pool.open(a)
        await world.pool.close()

    run_virtually(scenario())


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), most=st.sampled_from([None, 3, 4, 6]), count=st.integers(1, 5))
def test_schedules(seed: int, most: int | None, count: int) -> None:
    """Clients that come, wait, leave, use and release; things that fail now and then.

    `World` checks at each step that memory suffices, that one is loaded at a time, and that what is in use stays. Here:
    that each request ends as it should, that nothing is left, and that what is idle has gone when its time is over.
    """
    chance = random.Random(seed)
    world = World(most, seconds=chance.choice([0.5, 10.0]))
    slots = [world.add(f"m{i}", chance.randint(1, 3), chance.choice([0.0, 5.0, 60.0, math.inf])) for i in range(count)]

    ended: list[tuple[bool, str, Exception]] = []

    async def client() -> None:
        for _ in range(8):
            slot = chance.choice(slots)
            await asyncio.sleep(chance.choice([0.0, 0.0, 1.0, 30.0]))
            action = chance.random()
            if action < 0.1:
                world.pool.release(slot)
                continue
            if action < 0.2:
                world.failing ^= {slot.name}
            keep = chance.choice([None, None, None, 0.0, 3.0])
            patience = chance.choice([1e6, 1e6, 1.0, 10.0])
            try:
                async with asyncio.timeout(patience):
                    await world.use(slot, chance.choice([0.0, 1.0, 40.0]), keep)
            except (TimeoutError, SotolError) as error:
                ended.append((patience < 1e6, slot.name, error))

    async def scenario() -> None:
        await asyncio.gather(*(client() for _ in range(6)))
        await asyncio.sleep(100)
        for impatient, name, error in ended:
            assert impatient if isinstance(error, TimeoutError) else str(error) == f"{name} is broken"
        assert {slot.name for slot in slots if slot.status == "ready"} == set(world.there)
        assert all(slot.users == 0 and not slot.waiters and slot.coming is slot.going is None for slot in slots)
        assert all(slot.keep == math.inf for slot in slots if slot.thing is not None)
        assert most is None or sum(world.there.values()) <= most
        world.failing.clear()
        for slot in slots:
            assert await world.use(slot, 1.0) == slot.name
        await world.pool.close()
        assert world.there == {}

    run_virtually(scenario())


def test_leases_are_what_they_say() -> None:
    closed: list[str] = []
    lease = Lease("thing", lambda: closed.append("once"))
    lease.close()
    lease.close()
    assert (lease.thing, closed) == ("thing", ["once"])
