"""What is done to a request before its answer begins, in threads: it may be slow, and the event loop goes on."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TypeVar

import anyio
import anyio.to_thread

from sotol.engine.options import Sampling
from sotol.llm import LLM
from sotol.prompts import Turn
from sotol.server.models import Served
from sotol.server.problems import Problem, refusing
from sotol.server.running import Chat

__all__ = ["FIELDS", "Preparing"]

T = TypeVar("T")
THREADS = 4  # that render, tokenise and compile; more would take CPU time from the engine
FIELDS = {field.name: field.name for field in fields(Sampling)}
SLACK = 2  # times the characters that a context could hold are tokenised: normalising may make a text shorter


class Preparing:
    """Makes prompts, in a few threads that all requests share."""

    def __init__(self, prompt_tokens: int | None = None) -> None:
        """prompt_tokens: of a prompt, at most; None: what the context holds."""
        self._limiter = anyio.CapacityLimiter(THREADS)
        self._most = prompt_tokens

    async def run(self, function: Callable[[], T]) -> T:
        """Run what may be slow. Whoever waits can be cancelled: what runs then comes to its end unheard."""
        return await anyio.to_thread.run_sync(function, limiter=self._limiter, abandon_on_cancel=True)

    async def turn(self, served: Served, make: Callable[[], Chat], sampling: Sampling) -> Turn:
        """A conversation as a prompt. Problem for one that is malformed or too long.

        sampling: whose constraint is compiled here, for the answer's start to find.
        """

        def prepare() -> Turn:
            turn = self._turn(served, make())
            self._check(served.llm, len(turn.ids))
            _compile(served.llm, sampling, turn)
            return turn

        return await self.run(prepare)

    async def count(self, served: Served, make: Callable[[], Chat]) -> int:
        """How many tokens a conversation is, also where that is more than the context holds."""
        return await self.run(lambda: len(self._turn(served, make()).ids))

    async def ids(self, served: Served, prompt: str | list[int], sampling: Sampling, *, special: bool) -> list[int]:
        """The ids of a text, or of ids. Problem if there are too many. special: control tokens are parsed as such."""

        def prepare() -> list[int]:
            ids = prompt
            if isinstance(ids, str):
                self.check_text(served, len(ids))
                ids = served.llm.tokenize(ids, special=special)
            self._check(served.llm, len(ids))
            _compile(served.llm, sampling, None)
            return ids

        with refusing("prompt"):
            return await self.run(prepare)

    def check_text(self, served: Served, characters: int) -> None:
        """Problem for a text that is certainly too long: tokenising it would take seconds, and be for nothing."""
        least = characters // (SLACK * served.longest_token)
        if least >= served.llm.context:
            self._check(served.llm, least, "at least ")

    def _turn(self, served: Served, chat: Chat) -> Turn:
        self.check_text(served, sum(len(str(message.get("content") or "")) for message in chat.messages))
        with refusing("messages"):
            turn = served.llm.turn(
                chat.messages,
                tools=chat.tools,
                tool_choice=chat.tool_choice,
                parallel_tool_calls=chat.parallel,
                template=chat.template,
            )
        if not chat.prefill:
            return turn
        return replace(turn, ids=[*turn.ids, *served.llm.tokenizer.encode(chat.prefill, add_special=False)])

    def _check(self, llm: LLM, tokens: int, about: str = "") -> None:
        """Problem for a prompt of so many tokens, if that is too many."""
        if tokens >= llm.context:
            raise Problem(
                400,
                f"the prompt has {about}{tokens} tokens, but the model's context holds {llm.context} with the answer:"
                f" shorten the prompt to {llm.context - 1} tokens or fewer",
                code="context_length_exceeded",
            )
        if self._most is not None and tokens > self._most:
            message = f"the prompt has {tokens} tokens; this server takes up to {self._most}"
            raise Problem(400, message, code="context_length_exceeded")


def _compile(llm: LLM, sampling: Sampling, turn: Turn | None) -> None:
    """Compile what the answer is constrained by, so that its start finds it."""
    with refusing(names=FIELDS):
        llm.compile(sampling, turn)
