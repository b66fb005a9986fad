"""Things that take memory, loaded when they are used, unloaded when they are not: knows neither models nor HTTP.

All of it runs in one event loop. One thing is loaded at a time. What is in use is never unloaded: where memory is
short, who wants another thing waits until enough others are not in use any more, and those wait in turn who want them
meanwhile. So each gets its turn, whatever the others do.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from sotol.errors import SotolError, own_copy, plain

__all__ = ["Closed", "Lease", "Pool", "Slot", "Source", "Status", "Watch"]

log = logging.getLogger("sotol.server")
T = TypeVar("T")
Status: TypeAlias = Literal["unloaded", "loading", "ready", "failed"]
Reason: TypeAlias = Literal["idle", "memory", "asked"]


class Closed(SotolError):
    """The pool is closed, or closes while somebody waits."""


class Watch(Protocol):
    """Who wants to know what a pool does."""

    def loaded(self, name: str, seconds: float) -> None: ...
    def failed(self, name: str) -> None: ...
    def unloaded(self, name: str, reason: str) -> None: ...


class Source(NamedTuple, Generic[T]):
    """How to get a thing. size: the bytes that it will take, asked before it is loaded where memory has a limit.

    keep: seconds that it stays when nobody uses it; math.inf: for ever.
    """

    load: Callable[[], Awaitable[T]]
    unload: Callable[[T], Awaitable[None]]
    size: Callable[[], Awaitable[int]]
    keep: float = math.inf


class Lease(Generic[T]):
    """The use of a thing, which stays loaded until the lease is closed."""

    def __init__(self, thing: T, close: Callable[[], None]) -> None:
        self.thing, self._close = thing, close

    def close(self) -> None:
        """The use is over; any number of times."""
        close, self._close = self._close, _nothing
        close()


class Slot(Generic[T]):
    """A thing's place in the pool. Read by anybody, changed by the pool.

    size: the bytes that it takes, 0 if none. users: open leases. used: when the last one was opened or closed, in the
    loop's time. expires: when it will be unloaded unless it is used; None: when it is in use, or never. error: why it
    could not be loaded, the last time.
    """

    def __init__(self, name: str, source: Source[T] | None, thing: T | None = None) -> None:
        self.name, self.source, self.thing = name, source, thing
        self.status: Status = "unloaded" if thing is None else "ready"
        self.size = self.users = 0
        self.used = 0.0
        self.expires: float | None = None
        self.error: str | None = None
        self.keep = math.inf if source is None else source.keep
        self.waiters: list[asyncio.Future[Lease[T]]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.coming: asyncio.Task[None] | None = None
        self.going: asyncio.Task[None] | None = None
        self.quiet: asyncio.Event | None = None  # set when nobody uses it, for who waits to unload it


class Pool(Generic[T]):
    """The slots, and what of them fits into memory."""

    def __init__(self, most: int | None = None, watch: Watch | None = None) -> None:
        """most: bytes of all that is loaded; None: no limit."""
        self._most, self._watch = most, watch
        self._slots: list[Slot[T]] = []
        self._turn = asyncio.Lock()
        self._closed = False

    def add(self, name: str, source: Source[T] | None, thing: T | None = None) -> Slot[T]:
        """A new slot; without a source for a thing that is there and stays."""
        slot = Slot(name, source, thing)
        self._slots.append(slot)
        return slot

    async def open(self, slot: Slot[T], keep: float | None = None) -> Lease[T]:
        """A lease of the slot's thing, once that is loaded. Raises what loading raises; another call tries again.

        keep: seconds that it stays after this use, instead of the source's.
        """
        if (lease := self.open_now(slot, keep)) is not None:
            return lease
        future: asyncio.Future[Lease[T]] = asyncio.get_running_loop().create_future()
        slot.waiters.append(future)
        if slot.coming is None:
            if slot.thing is None:
                slot.status, slot.error = "loading", None
            slot.coming = asyncio.create_task(self._bring(slot))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().close()  # it came in the same moment
            raise

    def open_now(self, slot: Slot[T], keep: float | None = None) -> Lease[T] | None:
        """The same without waiting; None if it would have to."""
        if self._closed:
            raise Closed("the server is shutting down")
        if slot.source is not None:
            slot.keep = slot.source.keep if keep is None else keep
        return self._lease(slot) if slot.thing is not None and slot.going is None else None

    def release(self, slot: Slot[T], keep: float = 0.0) -> None:
        """Let it go after `keep` seconds in which nobody uses it: at once, unless somebody does."""
        slot.keep = keep
        if slot.thing is not None and not slot.users and slot.going is None:
            self._rest(slot)

    async def close(self) -> None:
        """Unload all; who still waits gets SotolError."""
        self._closed = True
        tasks = [task for slot in self._slots for task in (slot.coming, slot.going) if task is not None]
        for slot in self._slots:
            if slot.timer is not None:
                slot.timer.cancel()
            if slot.coming is not None:
                slot.coming.cancel()
            if slot.quiet is not None:
                slot.quiet.set()
        if tasks:
            await asyncio.wait(tasks)
        for slot in self._slots:
            if slot.source is not None and slot.thing is not None:
                going = slot.source.unload(slot.thing)
                slot.thing, slot.status = None, "unloaded"
                await going

    # ---- leases

    def _lease(self, slot: Slot[T]) -> Lease[T]:
        assert slot.thing is not None
        slot.users += 1
        slot.used, slot.expires = _now(), None
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None
        return Lease(slot.thing, lambda: self._end(slot))

    def _end(self, slot: Slot[T]) -> None:
        slot.users -= 1
        slot.used = _now()
        if slot.users == 0:
            self._rest(slot)

    def _rest(self, slot: Slot[T]) -> None:
        """Nobody uses it."""
        if slot.quiet is not None:
            slot.quiet.set()
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None
        if slot.source is None or slot.going is not None or self._closed:
            return
        if slot.keep <= 0:
            self._leave(slot, "asked")
        elif slot.keep < math.inf:
            slot.expires = _now() + slot.keep
            slot.timer = asyncio.get_running_loop().call_later(slot.keep, self._leave, slot, "idle")

    # ---- coming and going

    async def _bring(self, slot: Slot[T]) -> None:
        """Load a thing for those who wait."""
        try:
            async with self._turn:
                if slot.going is not None:
                    await asyncio.wait({slot.going})
                slot.waiters = [waiter for waiter in slot.waiters if not waiter.done()]
                if not slot.waiters:
                    slot.status = "unloaded"
                    return
                slot.status, begin = "loading", _now()
                await self._load(slot)
        except asyncio.CancelledError:
            slot.status = "unloaded"
            _fail(slot, Closed("the server is shutting down"))
            raise
        except Exception as error:  # noqa: BLE001  (who waits raises it)
            slot.status, slot.error, slot.size = "failed", plain(error), 0
            _fail(slot, error)
            log.error("loading failed", extra={"fields": {"model": slot.name, "error": slot.error}})
            if self._watch is not None:
                self._watch.failed(slot.name)
        else:
            seconds = round(_now() - begin, 3)
            log.info("loaded", extra={"fields": {"model": slot.name, "seconds": seconds}})
            if self._watch is not None:
                self._watch.loaded(slot.name, seconds)
        finally:
            slot.coming = None

    async def _load(self, slot: Slot[T]) -> None:
        assert slot.source is not None
        if self._most is not None:
            wanted = await slot.source.size()
            if await self._make_room(slot, wanted, self._most):
                wanted = await slot.source.size()  # it may take more where more is free
                await self._make_room(slot, wanted, self._most)
            slot.size = wanted  # from now on, as loading takes it
        slot.thing = await slot.source.load()
        slot.status, slot.used = "ready", _now()
        for waiter in slot.waiters:
            if not waiter.done():
                waiter.set_result(self._lease(slot))
        slot.waiters = []
        if not slot.users:  # all have left
            self._rest(slot)

    async def _make_room(self, slot: Slot[T], wanted: int, most: int) -> bool:
        """Unload what was not used for longest, idle things first, until there is room; SotolError if there is none.

        Whether that was necessary.
        """
        made = False
        while (missing := sum(other.size for other in self._slots) + wanted - most) > 0:
            going = [other.going for other in self._slots if other.going is not None]
            if not going:
                able = [other for other in self._slots if other.thing is not None and other.source is not None]
                if missing > sum(other.size for other in able):
                    raise SotolError(_too_large(slot.name, wanted, most))
                for other in sorted(able, key=lambda other: (other.users > 0, other.used)):
                    if missing > 0:
                        missing -= other.size
                        self._leave(other, "memory")
                going = [other.going for other in self._slots if other.going is not None]
            await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
            made = True
        return made

    def _leave(self, slot: Slot[T], reason: Reason) -> None:
        """Begin to unload a thing, once nobody uses it; who wants it from now on waits."""
        if slot.going is None and slot.thing is not None:
            slot.going = asyncio.create_task(self._unload(slot, reason))

    async def _unload(self, slot: Slot[T], reason: Reason) -> None:
        assert slot.source is not None
        assert slot.thing is not None
        try:
            if slot.users:
                slot.quiet = asyncio.Event()
                await slot.quiet.wait()
                slot.quiet = None
            going = slot.source.unload(slot.thing)  # a name for the thing here would keep it
            slot.thing, slot.expires = None, None
            slot.status = "loading" if slot.coming is not None else "unloaded"
            await going
        except Exception as error:
            log.error("unloading failed", exc_info=error, extra={"fields": {"model": slot.name}})
        finally:
            slot.size, slot.going = 0, None
        log.info("unloaded", extra={"fields": {"model": slot.name, "reason": reason}})
        if self._watch is not None:
            self._watch.unloaded(slot.name, reason)


def _fail(slot: Slot[T], error: Exception) -> None:
    for waiter in slot.waiters:
        if not waiter.done():
            waiter.set_exception(own_copy(error))
    slot.waiters = []


def _now() -> float:
    return asyncio.get_running_loop().time()


def _nothing() -> None:
    pass


def _too_large(name: str, wanted: int, most: int) -> str:
    if wanted < 10**6:
        return f"{name} takes {wanted} bytes of memory, more than there may be: {most}"
    return f"{name} takes {wanted / 1e6:,.1f} MB of memory, more than there may be: {most / 1e6:,.1f} MB"
