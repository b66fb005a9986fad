"""A running generation as an iterator of pieces of text."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Self

from sotol.engine.outbox import Outbox
from sotol.engine.sampling import Picked, Sampler
from sotol.engine.sequence import Event, Failed, Finished, TokenText
from sotol.results import Completion, TokenLogprob, TopLogprob, Usage
from sotol.tokenizers import Tokenizer
from sotol.workers import check_process

__all__ = ["AsyncStream", "Stream"]


class _Collector:
    """The events of a request, as they add up to a Completion."""

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: int, sampler: Sampler) -> None:
        self._tokenizer, self._prompt_tokens = tokenizer, prompt_tokens
        self._logprobs, self._seed = sampler.sampling.logprobs is not None, sampler.seed
        self._texts: list[str] = []
        self._picked: list[Picked] = []
        self.completion: Completion | None = None

    @property
    def tokens(self) -> int:
        """How many have come."""
        return len(self._picked)

    def take(self, event: Event) -> str:
        """The event's text. Raises the request's error if it failed."""
        if isinstance(event, Failed):
            raise event.error
        self._texts.append(event.text)
        if isinstance(event, TokenText):
            self._picked.append(event.picked)
        else:
            self.completion = self._complete(event)
        return event.text

    def _complete(self, end: Finished) -> Completion:
        usage = Usage(self._prompt_tokens, len(self._picked), end.reused)
        logprobs = tuple(map(self._logprob, self._picked)) if self._logprobs else None
        tokens = tuple(picked.token for picked in self._picked)
        return Completion("".join(self._texts), tokens, end.reason, logprobs, usage, end.timings, self._seed)

    def _logprob(self, picked: Picked) -> TokenLogprob:
        def text(token: int) -> str:
            return self._tokenizer.decode([token], special=True, continued=True)

        top = tuple(TopLogprob(token, text(token), logprob) for token, logprob in picked.top)
        assert picked.logprob is not None
        return TokenLogprob(picked.token, text(picked.token), picked.logprob, top)


class _Running:
    """What both kinds of streams are: a request under way that can be stopped. Losing one stops it too."""

    _over = True  # until it is made: one that was not can be lost as well

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: int, sampler: Sampler) -> None:
        self._collector = _Collector(tokenizer, prompt_tokens, sampler)
        self._cancel: Callable[[], None] = _nothing
        self._pid = os.getpid()
        self._over = False

    @property
    def completion(self) -> Completion | None:
        """The finished generation; None while it runs, or if it was stopped."""
        return self._collector.completion

    def close(self) -> None:
        """Stop the generation, if it still runs."""
        if not self._over:
            self._cancel()  # first: if this is interrupted, losing the stream does it again
            self._over = True

    def __repr__(self) -> str:
        done = self.completion
        state = f"ended by {done.finish_reason}" if done else "closed" if self._over else "running"
        return f"<{type(self).__name__}: {state}, {self._collector.tokens} tokens>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._over:
            self._cancel()

    def _whole(self) -> Completion:
        if self.completion is None:
            raise ValueError("the stream was closed before its end")
        return self.completion


class Stream(_Running, Iterator[str]):
    """Pieces of text as they come; `completion` is the whole once they have. Closing it stops the work."""

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: int, sampler: Sampler) -> None:
        super().__init__(tokenizer, prompt_tokens, sampler)
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._reading = threading.Lock()  # who reads takes what it reads, before another finds that it was the last

    def __next__(self) -> str:
        check_process(self._pid)
        try:
            with self._reading:
                while not self._over:
                    event = self._events.get()
                    text = self._collector.take(event) if event is not None else ""
                    self._over = self._over or self.completion is not None
                    if text:
                        return text
        except BaseException:  # the request's error, or Ctrl-C while waiting
            self.close()
            raise
        raise StopIteration

    def result(self) -> Completion:
        """Wait for the end. Raises ValueError if the stream was closed before."""
        for _ in self:
            pass
        return self._whole()

    def close(self) -> None:
        """Stop the generation, if it still runs, from any thread; one that waits for the next piece finds the end."""
        try:
            super().close()
        finally:
            self._events.put(None)

    def attach(
        self, cancel: Callable[[], None], outbox: Outbox, ended: Callable[[], None] | None = None
    ) -> Callable[[Event], None]:
        """Connect the stream to its request: how to cancel that, and (returned) where it delivers.

        outbox: the engine's. ended: called when the last event can be read, without waiting. What is returned does not
        keep the stream alive, so that losing the stream ends the work.
        """
        del outbox  # a queue wakes its reader by itself
        self._cancel = cancel
        return _receiver(self._events.put, ended)


class AsyncStream(_Running):
    """The same for `async for`, in the event loop that made it: RuntimeError in another one."""

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: int, sampler: Sampler) -> None:
        """Raises RuntimeError where no event loop runs."""
        import asyncio  # noqa: PLC0415  (15 ms, and the command line does without)

        super().__init__(tokenizer, prompt_tokens, sampler)
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._reading = asyncio.Lock()
        self._current_loop = asyncio.get_running_loop
        self._loop = self._current_loop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        check_process(self._pid)
        if self._current_loop() is not self._loop:
            raise RuntimeError("this stream was made in another event loop: read it there")
        try:
            async with self._reading:
                while not self._over:
                    event = await self._events.get()
                    text = self._collector.take(event) if event is not None else ""
                    self._over = self._over or self.completion is not None
                    if text:
                        return text
        except BaseException:  # the request's error, or this task's cancellation
            self.close()
            raise
        raise StopAsyncIteration

    async def result(self) -> Completion:
        """Wait for the end. Raises ValueError if the stream was closed before."""
        async for _ in self:
            pass
        return self._whole()

    def close(self) -> None:
        """As for `Stream`; not only from the event loop."""
        if self._over:
            return
        super().close()
        with suppress(RuntimeError):  # the loop is closed: nobody waits in it
            self._loop.call_soon_threadsafe(self._events.put_nowait, None)

    def attach(
        self, cancel: Callable[[], None], outbox: Outbox, ended: Callable[[], None] | None = None
    ) -> Callable[[Event], None]:
        """As for `Stream`; `ended` is called in the event loop. Deliveries fail once that is closed."""
        self._cancel = cancel
        receive = _receiver(self._events.put_nowait, ended)
        return partial(outbox.put, self._loop, receive)  # and not self: see `Stream`


def _receiver(put: Callable[[Event], object], ended: Callable[[], None] | None) -> Callable[[Event], None]:
    """What takes a request's events, and tells when the last has come."""

    def receive(event: Event) -> None:
        put(event)
        if ended is not None and not isinstance(event, TokenText):
            ended()

    return receive


def _nothing() -> None:
    pass
