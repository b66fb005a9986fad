"""What a step has for event loops. Each loop gets all of it in one call: a call wakes the loop's thread.

Knows nothing of asyncio but that one method of a loop may be called from any thread.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

__all__ = ["Loop", "Outbox"]


class Loop(Protocol):
    """An event loop: `asyncio.AbstractEventLoop`, as far as it is needed here."""

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> object: ...
    def is_closed(self) -> bool: ...


class _Letter(NamedTuple):
    loop: Loop
    receive: Callable[[Any], object]  # called in the loop's thread
    event: Any


class Outbox:
    """Events, in their order, until the step that they come from is over. Any thread may put and flush."""

    def __init__(self) -> None:
        self._letters: deque[_Letter] = deque()  # no lock: see `engine._Inbox`

    def put(self, loop: Loop, receive: Callable[[Any], object], event: object) -> None:
        """Have `receive(event)` called in a loop, after the next flush. RuntimeError for a loop that is closed."""
        if loop.is_closed():
            raise RuntimeError("the event loop is closed: nobody listens")
        self._letters.append(_Letter(loop, receive, event))

    def flush(self) -> None:
        """Hand over what there is: one call for each loop."""
        if not self._letters:
            return
        letters: dict[Loop, list[_Letter]] = {}
        with suppress(IndexError):  # no more; another thread may have taken the last
            while True:
                letter = self._letters.popleft()
                letters.setdefault(letter.loop, []).append(letter)
        for loop, some in letters.items():
            with suppress(RuntimeError):  # closed meanwhile: the next `put` says so
                loop.call_soon_threadsafe(_hand_over, some)


def _hand_over(letters: list[_Letter]) -> None:
    for _, receive, event in letters:
        receive(event)
