"""An event loop whose clock jumps to the next timer as soon as nothing else is to be done: hours pass in a moment."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_virtually"]

T = TypeVar("T")


class _Instant(selectors.SelectSelector):
    """A selector that never waits, and tells how long it was asked to."""

    asked: float | None = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.asked = timeout
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._instant = _Instant()
        self._now = 1000.0
        super().__init__(self._instant)

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]  # asyncio's own, which all of its loops have
        if self._instant.asked is None:
            raise AssertionError("everything waits for something that does not come")
        self._now += self._instant.asked


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run it, in no time. AssertionError where all of it waits for ever. It may use neither threads nor sockets."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)
