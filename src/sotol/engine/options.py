"""The options of a request: how to choose tokens, and when to stop. Knows nothing of logits: that is `sampling.py`.

NumPy is not needed here, so the command line can show names and defaults without it.
"""

import math
import numbers
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, TypedDict

from sotol.engine import policy
from sotol.errors import meant

__all__ = ["Options", "Sampling", "Terms"]

# option: (kind, least, most); numbers of UNSET mean None, as they do in llama.cpp and ollama
RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "temperature": (float, 0, 100),
    "top_k": (int, 0, 2**31 - 1),
    "top_p": (float, 0, 1),
    "min_p": (float, 0, 1),
    "repeat_penalty": (float, 0.01, 100),
    "repeat_last_n": (int, -1, 2**31 - 1),
    "frequency_penalty": (float, -2, 2),
    "presence_penalty": (float, -2, 2),
    "seed": (int, 0, 2**63 - 1),
    "logprobs": (int, 0, 20),
    "max_tokens": (int, 1, 2**31 - 1),
    "thinking_budget": (int, 1, 2**31 - 1),
    "n": (int, 1, 128),
}
OPTIONAL = frozenset({"seed", "logprobs", "max_tokens", "thinking_budget", "n"})
UNSET: dict[str, tuple[int, ...]] = {"seed": (-1,), "max_tokens": (-1, -2), "thinking_budget": (-1,)}
MAX_STOPS = 64
CONSTRAINTS = ("json", "schema", "regex", "grammar")


class Options(TypedDict, total=False):
    """The fields of `Sampling` as keyword arguments, but for `n`; None means the default."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repeat_penalty: float | None
    repeat_last_n: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None
    stop: str | Sequence[str] | None
    logprobs: int | None
    max_tokens: int | None
    thinking_budget: int | None
    ignore_eos: bool | None
    json: bool | None
    schema: Any
    regex: str | None
    grammar: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose tokens, and when to stop; a wrong value raises ValueError that names the option and its range.

    temperature: 0 takes the most likely token (the lowest id of equals); 1 draws from the model's own distribution.
    top_k: keep the k most likely tokens; 0 keeps all.
    top_p: keep the fewest tokens whose probabilities reach p (Holtzman et al. 2019, arXiv 1904.09751); 1 keeps all.
    min_p: keep tokens at least this times as likely as the best (Nguyen et al. 2024, arXiv 2407.01082); 0 keeps all.
    repeat_penalty: divides positive and multiplies negative logits of the last `repeat_last_n` tokens, prompt included
        (Keskar et al. 2019, arXiv 1909.05858); 1 is off. `repeat_last_n` -1 is the whole context, 0 is off.
    frequency_penalty, presence_penalty: subtracted per generated occurrence, and once for any (OpenAI's meaning).
    logit_bias: added to these ids' logits; -inf forbids an id.
    seed: of the random stream; None or -1 takes one at random, which the completion tells.
    stop: the text ends before the first of these strings. One may spell tokens that answers do not show, "<|im_end|>".
    logprobs: how many alternatives per token to report, from the model's own distribution; None reports none.
    max_tokens: how many tokens to generate at most; None or -1 goes on to the end of the context.
    thinking_budget: how many tokens a model that thinks may think, in a conversation, before what ends its thoughts is
        written for it; None or -1 sets no limit.
    ignore_eos: go on after the model's end-of-generation tokens; where the answer is constrained, which then decides
        when it ends, only end where nothing else may follow.
    json, schema, regex, grammar: what the answer must be, of which one may be given: a JSON object, JSON that a schema
        describes, a text that a regular expression matches as a whole, or a sentence of a grammar. It is, or it is cut
        ("length"). A model that thinks first does so freely. schema: a JSON schema, as a dict or text; or a Pydantic
        model, dataclass or TypedDict, and the completion's `parsed` is an object of it. regex: in the syntax of Rust's
        `regex`, without looking around. grammar: in GBNF (llama.cpp's) or in llguidance's form of Lark.
    n: how many answers to give to each prompt, in a list; the second's seed is one more than the first's, and so on.
        None gives one answer without a list. A type checker knows that there is a list where `n` is an argument of the
        call itself.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: str | Sequence[str] = ()
    logprobs: int | None = None
    max_tokens: int | None = None
    thinking_budget: int | None = None
    ignore_eos: bool = False
    json: bool = False
    schema: Any = None
    regex: str | None = None
    grammar: str | None = None
    n: int | None = None

    def __post_init__(self) -> None:
        for name, (kind, least, most) in RANGES.items():
            object.__setattr__(self, name, _number(name, getattr(self, name), kind, least, most))
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))
        object.__setattr__(self, "stop", _stops(self.stop))
        for name in ("ignore_eos", "json"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r:.100}; it must be True or False")
        _check_constraints({name: value for name in CONSTRAINTS if (value := getattr(self, name)) not in (None, False)})

    @property
    def constrained(self) -> bool:
        """Whether it says what the answer must be."""
        return any(getattr(self, name) not in (None, False) for name in CONSTRAINTS)

    @classmethod
    def of(cls, base: "Sampling | None" = None, **options: object) -> "Sampling":
        """`base` (or the defaults) with some options changed; None stands for an option's default.

        An unknown one raises ValueError that names it, and the one that may have been meant.
        """
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise ValueError(f"unknown sampling option {name!r:.100}: {meant(name, known)}")
        default = cls()
        given = {name: getattr(default, name) if value is None else value for name, value in options.items()}
        return replace(base or default, **given)  # type: ignore[arg-type]  # __post_init__ checks every value


class Terms(NamedTuple):
    """What a request may ask of those that serve it.

    client: a name, or anything hashable: requests of one client share what there is with those of others, however many
    there are. None: the prompts of a call are a client. priority: requests of a higher one come first, and give way
    last. deadline: seconds from the call; a request that is not done by then raises SotolError. Of requests of one
    client and one priority, the one with the earlier deadline starts first.
    """

    client: Hashable = None
    priority: int = 0
    deadline: float | None = None

    def at(self, now: float) -> policy.Terms:
        """These terms for the engine, whose clock (`time.monotonic`) shows `now`. ValueError for a wrong value."""
        try:
            hash(self.client)
        except TypeError:
            raise ValueError(f"client is {self.client!r:.100}; it must be hashable, as a name is") from None
        priority = int(_number("priority", self.priority, int, -(2**31), 2**31 - 1) or 0)
        if self.deadline is None:
            return policy.Terms(self.client, priority)
        right = isinstance(self.deadline, numbers.Real) and not isinstance(self.deadline, bool)
        if not right or not 0 < self.deadline < math.inf:
            raise ValueError(f"deadline is {self.deadline!r:.100}; it must be a number of seconds above 0, or None")
        return policy.Terms(self.client, priority, now + float(self.deadline))


def _number(name: str, value: Any, kind: type[int] | type[float], least: float, most: float) -> float | None:
    if name in OPTIONAL and (value is None or value in UNSET.get(name, ())):
        return None
    right = isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    if not right or not least <= value <= most:  # not >, so that NaN fails too
        what = "a whole number" if kind is int else "a number"
        none = ", or None" if name in OPTIONAL else ""
        raise ValueError(f"{name} is {value!r:.100}; it must be {what} from {least:.20g} to {most:.20g}{none}")
    return kind(value)


def _biases(given: object) -> dict[int, float]:
    if not isinstance(given, Mapping):
        raise ValueError(f"logit_bias is {given!r:.100}; it must map token ids to numbers")
    biases: dict[int, float] = {}
    for token, value in given.items():
        if isinstance(token, bool) or not isinstance(token, numbers.Integral) or token < 0:
            raise ValueError(f"logit_bias has the key {token!r:.100}; keys must be token ids, whole numbers from 0")
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not value < math.inf:
            raise ValueError(
                f"logit_bias[{token}] is {value!r:.100}; it must be a finite number, or -inf to forbid the token"
            )
        biases[int(token)] = float(value)
    return biases


def _check_constraints(given: Mapping[str, object]) -> None:
    """What the answer must be, as far as that can be seen without a model."""
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are given; an answer can have one of {', '.join(CONSTRAINTS)}")
    for name, value in given.items():
        if name in ("regex", "grammar") and not isinstance(value, str):
            raise ValueError(f"{name} is {value!r:.100}; it must be text")
        if name == "schema" and not isinstance(value, str | Mapping | type):
            raise ValueError(f"schema is {value!r:.100}; it must be a dict, JSON text, or a class")


def _stops(given: object) -> tuple[str, ...]:
    stops = (given,) if isinstance(given, str) else given
    if not isinstance(stops, Sequence) or not all(isinstance(s, str) and s for s in stops) or len(stops) > MAX_STOPS:
        raise ValueError(
            f"stop is {given!r:.100}; it must be a string or up to {MAX_STOPS} strings, none of them empty"
        )
    return tuple(stops)
