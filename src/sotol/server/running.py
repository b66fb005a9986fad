"""From a request in no dialect to the events of its answers. Nothing slow happens on the event loop.

A client that closes its connection stops its generations at once: whoever answers watches `receive` meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, TypeAlias

from sotol.engine.options import Sampling, Terms
from sotol.llm import LLM
from sotol.prompts import Prompt
from sotol.results import Completion, Delta
from sotol.server.body import ClientGone, Receive
from sotol.stream import AsyncStream

__all__ = ["Chat", "Event", "Run", "start", "watching", "whole"]

Event: TypeAlias = tuple[int, Delta | Completion]  # the number of the answer, and more of it or, at last, the whole


class Chat(NamedTuple):
    """A conversation to answer, in what `LLM.turn` takes. prefill: how the answer begins, which it does not repeat."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: Any = "auto"
    parallel: bool = True
    template: Mapping[str, Any] | None = None
    prefill: str = ""


class Run:
    """Answers that are being generated. Closing it stops them."""

    def __init__(self, streams: Sequence[AsyncStream]) -> None:
        self.streams = streams

    async def events(self) -> AsyncIterator[Event]:
        """What comes, of all answers in the order of its coming. Raises ClientGone if it is closed meanwhile.

        An answer's error ends all.
        """
        if len(self.streams) == 1:
            (stream,) = self.streams
            async for delta in stream.deltas():
                yield 0, delta
            yield 0, _whole(stream)
            return
        queue: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        pumps = [asyncio.ensure_future(_pump(i, stream, queue)) for i, stream in enumerate(self.streams)]
        try:
            left = len(pumps)
            while left:
                event = await queue.get()
                if isinstance(event, BaseException):
                    raise event
                left -= isinstance(event[1], Completion)
                yield event
        finally:
            for pump in pumps:
                pump.cancel()

    def close(self) -> None:
        """Stop what still runs."""
        for stream in self.streams:
            stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start(llm: LLM, prompts: Sequence[Prompt], sampling: Sampling, terms: Terms, each: int = 1) -> Run:
    """Begin `each` answers to each prompt, which was made in a thread: all of the first prompt's first.

    ValueError for what only the engine finds wrong, QueueFullError.
    """
    streams: list[AsyncStream] = []
    try:
        for prompt in prompts:
            streams += llm.astream(prompt, n=each, sampling=sampling, terms=terms)
    except BaseException:
        Run(streams).close()
        raise
    return Run(streams)


async def whole(run: Run, receive: Receive) -> list[Completion]:
    """All answers. Raises ClientGone as soon as the client has closed its connection: then their work has stopped."""
    watch = asyncio.ensure_future(watching(run, receive))
    try:
        with run:  # if one fails, the others end
            return await asyncio.gather(*(stream.result() for stream in run.streams))
    except ValueError:
        if watch.done():
            raise ClientGone from None
        raise
    finally:
        watch.cancel()


async def watching(run: Run, receive: Receive) -> None:
    """Close a run when its client goes; the request's body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
    run.close()


async def _pump(number: int, stream: AsyncStream, queue: "asyncio.Queue[Event | BaseException]") -> None:
    """Puts a stream's events into a queue, and its end: the whole or an exception."""
    try:
        async for delta in stream.deltas():
            queue.put_nowait((number, delta))
        queue.put_nowait((number, _whole(stream)))
    except Exception as error:  # noqa: BLE001  (whoever reads the queue raises it)
        queue.put_nowait(error)


def _whole(stream: AsyncStream) -> Completion:
    if stream.completion is None:
        raise ClientGone  # nobody else closes it
    return stream.completion
