"""A running generation as an iterator: of its text, or of all that each event gives."""

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self

from sotol.answers.folding import Fold
from sotol.answers.pieces import Content, Piece
from sotol.engine.outbox import Outbox
from sotol.engine.sampling import Picked, Sampler
from sotol.engine.sequence import Event, Failed, Finished, TokenText
from sotol.results import Completion, Delta, TokenLogprob, TopLogprob, Usage
from sotol.tokenizers import Tokenizer
from sotol.workers import check_process

if TYPE_CHECKING:
    from sotol.answers.parser import AnswerParser

__all__ = ["AsyncStream", "Stream"]


class _Collector:
    """The events of a request, as they add up to a Completion. parser: reads the answer; None: it is text."""

    def __init__(
        self, tokenizer: Tokenizer, prompt_tokens: int, sampler: Sampler, parser: "AnswerParser | None"
    ) -> None:
        self._tokenizer, self._prompt_tokens, self._parser = tokenizer, prompt_tokens, parser
        self._with_logprobs, self._seed = sampler.sampling.logprobs is not None, sampler.seed
        self._stops, self._schema = sampler.sampling.stop, sampler.sampling.schema
        self._fold = Fold()
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._reasoning_tokens = 0
        self.completion: Completion | None = None

    @property
    def tokens(self) -> int:
        """How many have come."""
        return len(self._tokens)

    def take(self, event: Event) -> Delta:
        """What the event gives. Raises the request's error if it failed."""
        if isinstance(event, Failed):
            raise event.error
        pieces = self._read(event)
        for piece in pieces:
            self._fold.take(piece)
        if isinstance(event, Finished):
            self.completion = self._complete(event)
            return Delta(pieces, (), 0)
        self._tokens.append(event.picked.token)
        if not self._with_logprobs:
            return Delta(pieces, (), 1)
        self._logprobs.append(self._logprob(event.picked))
        return Delta(pieces, (self._logprobs[-1],), 1)

    def _read(self, event: TokenText | Finished) -> tuple[Piece, ...]:
        parser = self._parser
        if parser is None:
            return (Content(event.text),) if event.text else ()
        before = parser.reasoning
        pieces = parser.push(event.text)
        if isinstance(event, Finished):
            pieces += parser.finish()
        elif before or parser.reasoning:
            self._reasoning_tokens += 1
        return tuple(pieces)

    def _complete(self, end: Finished) -> Completion:
        answer, parsed = self._fold.answer, None
        if isinstance(self._schema, type):
            from sotol.engine.typed import object_of  # noqa: PLC0415  (few answers have one)

            with suppress(ValueError):  # it was cut, by a stop string too; or Pydantic knows more than its schema says
                parsed = object_of(self._schema, answer.content)
        return Completion(
            answer.content,
            tuple(self._tokens),
            "tool_calls" if answer.calls and end.reason == "stop" else end.reason,
            tuple(self._logprobs) if self._with_logprobs else None,
            Usage(self._prompt_tokens, len(self._tokens), end.reused, self._reasoning_tokens),
            end.timings,
            self._seed,
            answer.reasoning,
            answer.calls,
            None if end.stop is None else self._stops[end.stop % len(self._stops)],  # as `requests` lists them, twice
            parsed,
        )

    def _logprob(self, picked: Picked) -> TokenLogprob:
        def text(token: int) -> str:
            return self._tokenizer.decode([token], special=True, continued=True)

        top = tuple(TopLogprob(token, text(token), logprob) for token, logprob in picked.top)
        assert picked.logprob is not None
        return TokenLogprob(picked.token, text(picked.token), picked.logprob, top)


class _Running:
    """What both kinds of streams are: a request under way that can be stopped. Losing one stops it too."""

    _over = True  # until it is made: one that was not can be lost as well

    def __init__(
        self, tokenizer: Tokenizer, prompt_tokens: int, sampler: Sampler, parser: "AnswerParser | None" = None
    ) -> None:
        self._collector = _Collector(tokenizer, prompt_tokens, sampler, parser)
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
    """Pieces of text as they come; `completion` is the whole once they have. Closing it stops the work.

    Of an answer to a `Turn`, the text is what it says; `deltas()` gives its reasoning and its calls, too.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt_tokens: int, sampler: Sampler, parser: "AnswerParser | None" = None
    ) -> None:
        super().__init__(tokenizer, prompt_tokens, sampler, parser)
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._reading = threading.Lock()  # who reads takes what it reads, before another finds that it was the last

    def __next__(self) -> str:
        while (delta := self._next()) is not None:
            if text := _text(delta):
                return text
        raise StopIteration

    def deltas(self) -> Iterator[Delta]:
        """What each event gives, as it comes, in place of the text alone; who reads both finds each event in one."""
        while (delta := self._next()) is not None:
            yield delta

    def _next(self) -> Delta | None:
        """Wait for an event; None at the end."""
        check_process(self._pid)
        try:
            with self._reading:
                event = None if self._over else self._events.get()
                if event is None:
                    return None
                delta = self._collector.take(event)
                self._over = self._over or self.completion is not None
                return delta
        except BaseException:  # the request's error, or Ctrl-C while waiting
            self.close()
            raise

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

    def __init__(
        self, tokenizer: Tokenizer, prompt_tokens: int, sampler: Sampler, parser: "AnswerParser | None" = None
    ) -> None:
        """Raises RuntimeError where no event loop runs."""
        import asyncio  # noqa: PLC0415  (15 ms, and the command line does without)

        super().__init__(tokenizer, prompt_tokens, sampler, parser)
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._reading = asyncio.Lock()
        self._current_loop = asyncio.get_running_loop
        self._loop = self._current_loop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while (delta := await self._next()) is not None:
            if text := _text(delta):
                return text
        raise StopAsyncIteration

    def deltas(self) -> AsyncIterator[Delta]:
        """As for `Stream`."""
        return _Deltas(self)

    async def _next(self) -> Delta | None:
        """Wait for an event; None at the end."""
        check_process(self._pid)
        if self._current_loop() is not self._loop:
            raise RuntimeError("this stream was made in another event loop: read it there")
        try:
            async with self._reading:
                event = None if self._over else await self._events.get()
                if event is None:
                    return None
                delta = self._collector.take(event)
                self._over = self._over or self.completion is not None
                return delta
        except BaseException:  # the request's error, or this task's cancellation
            self.close()
            raise

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


class _Deltas(AsyncIterator[Delta]):
    """An asynchronous generator would live on in its event loop, and the work with it, after who reads it has left."""

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream

    async def __anext__(self) -> Delta:
        if (delta := await self._stream._next()) is None:
            raise StopAsyncIteration
        return delta


def _receiver(put: Callable[[Event], object], ended: Callable[[], None] | None) -> Callable[[Event], None]:
    """What takes a request's events, and tells when the last has come."""

    def receive(event: Event) -> None:
        put(event)
        if ended is not None and not isinstance(event, TokenText):
            ended()

    return receive


def _text(delta: Delta) -> str:
    """What it says."""
    return "".join(piece.text for piece in delta.pieces if isinstance(piece, Content))


def _nothing() -> None:
    pass
