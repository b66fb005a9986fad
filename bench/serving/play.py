"""Plays a trace to an engine, a thread for each client, and notes when tokens reach it. Knows no engine."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from threading import Event, Thread
from time import perf_counter, sleep
from typing import Any, TypeAlias

from bench.serving.trace import Client, Request

__all__ = ["Answer", "Ask", "answers_of", "play", "record_of"]

HEAD_START = 0.05  # seconds for the threads to start
# A prompt and how many tokens are wanted: yields how many have just come, until that is all. Closing it stops the work.
Ask: TypeAlias = Callable[[Sequence[int], int], Generator[int, None, None]]


@dataclass(slots=True)
class Answer:
    """What became of a request. Times are seconds after the beginning of the trace."""

    asked: float  # when it was due: its time, or the end of its client's last answer
    arrivals: list[tuple[float, int]] = field(default_factory=list)  # when tokens came, and how many
    error: str = ""

    @property
    def tokens(self) -> int:
        """How many have come."""
        return sum(count for _, count in self.arrivals)


def play(ask: Ask, clients: Sequence[Client]) -> list[list[Answer]]:
    """The answers to each client's requests; those that a background client did not send are missing.

    An answer that fails or is too short says so in `error`.
    """
    answers: list[list[Answer]] = [[] for _ in clients]
    over = Event()  # for clients in the background
    begin = perf_counter() + HEAD_START
    threads = [
        Thread(target=_serve, args=(ask, client, begin, over, found), daemon=True)
        for client, found in zip(clients, answers, strict=True)
    ]
    for thread in threads:
        thread.start()
    for background in (False, True):
        for thread, client in zip(threads, clients, strict=True):
            if client.background == background:
                thread.join()
        over.set()
    return answers


def _serve(ask: Ask, client: Client, begin: float, over: Event, answers: list[Answer]) -> None:
    """One client: its thread."""
    for request in client.requests:
        now = perf_counter() - begin
        answer = Answer(max(request.at, now) if answers else request.at)
        sleep(max(0.0, request.at - now))
        if client.background and over.is_set():
            return
        answers.append(answer)
        try:
            _listen(ask, request, begin, over if client.background else Event(), answer)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is this request's)
            answer.error = f"{type(error).__name__}: {error}"


def _listen(ask: Ask, request: Request, begin: float, over: Event, answer: Answer) -> None:
    with closing(ask(request.prompt, request.new)) as arrivals:
        for count in arrivals:
            answer.arrivals.append((perf_counter() - begin, count))
            if over.is_set():
                return
    if answer.tokens != request.new:
        answer.error = f"it has {answer.tokens} tokens instead of {request.new}"


def record_of(answers: Sequence[Sequence[Answer]]) -> list[list[dict[str, Any]]]:
    """Answers as JSON has them."""
    return [[{"asked": x.asked, "arrivals": x.arrivals, "error": x.error} for x in client] for client in answers]


def answers_of(record: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[Answer]]:
    """The answers of a record."""
    return [
        [Answer(x["asked"], [(at, count) for at, count in x["arrivals"]], x["error"]) for x in client]
        for client in record
    ]
