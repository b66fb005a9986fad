"""Who asks what, and when. The same seed and ids give the same trace on any machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Any

__all__ = [
    "NEW",
    "PROMPT",
    "SHARED",
    "Client",
    "Request",
    "beside_prompts",
    "clients_of",
    "poisson",
    "record_of",
    "with_prefix",
]

SHARED = 400  # tokens that all prompts of `poisson` begin with
PROMPT = (420, 600)  # least and most tokens of one, the shared ones included
NEW = (16, 96)  # least and most tokens of an answer
TAIL = 20  # tokens that the second prompt of `with_prefix` has behind the first


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how many tokens its answer has, whatever they are."""

    at: float  # seconds after the beginning, before which it is not sent
    prompt: tuple[int, ...]
    new: int


@dataclass(frozen=True, slots=True)
class Client:
    """Sends its requests one after another, each when the last is answered.

    background: its answers are stopped when the other clients have theirs.
    """

    requests: tuple[Request, ...]
    background: bool = False


def poisson(ordinary: Sequence[int], count: int, rate: float, seed: int) -> list[Client]:
    """`count` clients with a request each, `rate` per second on average from 0 on; all come at 0 if rate is inf.

    ordinary: the token ids to choose from. Arrivals are a Poisson process: the times between them are exponential.
    ValueError for fewer than one request, or a rate that is not above 0.
    """
    if count < 1:
        raise ValueError(f"requests is {count}; it must be at least 1")
    if not rate > 0:
        raise ValueError(f"rate is {rate}; it must be above 0 requests per second, or inf")
    random = Random(seed)
    shared = tuple(random.choices(ordinary, k=SHARED))
    clients, at = [], 0.0
    for _ in range(count):
        own = random.choices(ordinary, k=random.randint(*PROMPT) - SHARED)
        clients.append(Client((Request(at, (*shared, *own), random.randint(*NEW)),)))
        at += 0.0 if rate == inf else random.expovariate(rate)
    return clients


def with_prefix(ordinary: Sequence[int], tokens: int, new: int, seed: int) -> list[Client]:
    """One client with two requests: a prompt of so many tokens, and the same prompt with TAIL tokens behind it."""
    random = Random(seed)
    first = tuple(random.choices(ordinary, k=tokens))
    second = (*first, *random.choices(ordinary, k=TAIL))
    return [Client((Request(0.0, first, new), Request(0.0, second, new)))]


def beside_prompts(
    ordinary: Sequence[int], answers: int, tokens: int, prompts: Sequence[int], new: int, at: float, seed: int
) -> list[Client]:
    """Long prompts by one client back to back, from `at` on, while others have their answers.

    answers: clients with a prompt of so many `tokens` and an answer of `new`; they stop when the long prompts are done.
    prompts: tokens of each long prompt, whose answers are one token; where there are none, the others don't stop.
    """
    random = Random(seed)
    starts = [tuple(random.choices(ordinary, k=tokens)) for _ in range(answers)]
    running = [Client((Request(0.0, start, new),), background=len(prompts) > 0) for start in starts]
    return [*running, Client(tuple(Request(at, tuple(random.choices(ordinary, k=length)), 1) for length in prompts))]


def record_of(clients: Sequence[Client]) -> list[dict[str, Any]]:
    """Clients as JSON has them."""
    return [
        {"background": x.background, "requests": [[r.at, list(r.prompt), r.new] for r in x.requests]} for x in clients
    ]


def clients_of(record: Sequence[Mapping[str, Any]]) -> list[Client]:
    """The clients of a record."""
    return [
        Client(tuple(Request(at, tuple(prompt), new) for at, prompt, new in x["requests"]), x["background"])
        for x in record
    ]
