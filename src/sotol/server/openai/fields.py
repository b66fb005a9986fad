"""The fields that requests of OpenAI's dialect share, and what they mean for `Sampling`.

OpenAI's own, and extensions by the names of llama-server (tools/server/README.md of llama.cpp) and vLLM (its
"extra parameters"). null stands for the default, which is the server's own sampling, not OpenAI's. A field that nobody
knows is refused, as OpenAI does; a sampler of others that sotol lacks is accepted only where it is off.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from sotol.server.problems import Problem

__all__ = ["OFF", "SEEDS", "Request", "StreamOptions", "Strict", "Text", "refuse_what_is_on"]

SEEDS = 2**63
Text = Annotated[str, Field(max_length=256)]
Stop = Annotated[str, Field(max_length=1024)]
Json = dict[str, JsonValue]
Choice = Annotated[list[str], Field(min_length=1, max_length=1000)]

# Fields of other servers -> the values that turn off, or leave as it is, what sotol does not have.
OFF: Mapping[str, tuple[object, ...]] = {
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "early_stopping": (False,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "min_keep": (0,),
    "min_tokens": (0,),
    "mirostat": (0,),
    "moderation": (),
    "n_keep": (0, -1),
    "priority": (0,),
    "prompt_logprobs": (0, False),
    "return_tokens": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True, False),
    "stop_token_ids": ([],),
    "tfs_z": (1,),
    "top_n_sigma": (-1, 0),
    "typical_p": (1,),
    "use_beam_search": (False,),
    "web_search_options": (),
    "xtc_probability": (0,),
}


class Strict(BaseModel):
    """A record of a request: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamOptions(Strict):
    """What a stream has besides. Obfuscation, of lengths against who watches the wire, is not done."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class StructuredOutputs(Strict):
    """vLLM's field for one of these."""

    json_: Json | str | None = Field(None, alias="json")
    regex: str | None = None
    grammar: str | None = None
    choice: Choice | None = None


class Request(Strict):
    """What chat completions and completions share."""

    # Not part of the text or of the answer: accepted, without effect.
    WITHOUT_EFFECT: ClassVar[str] = "user, metadata, store, service_tier, …, cache_prompt, id_slot, timings_per_token"
    user: Text | None = None
    metadata: dict[str, JsonValue] | None = None
    store: bool | None = None
    service_tier: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_retention: Text | None = None
    cache_prompt: bool | None = None
    id_slot: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    timings_per_token: bool | None = None
    request_id: Text | None = None

    model: Text | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=4096)] | None = None
    seed: Annotated[int, Field(ge=-SEEDS, lt=SEEDS)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=64)] | None = None
    max_tokens: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None

    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    repeat_last_n: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    n_predict: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    n_probs: Annotated[int, Field(ge=0, le=20)] | None = None
    thinking_budget: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    thinking_budget_tokens: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    reasoning_budget_tokens: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    ignore_eos: bool | None = None
    grammar: str | None = None
    json_schema: Json | None = None
    guided_json: Json | str | None = None
    guided_regex: str | None = None
    guided_grammar: str | None = None
    guided_choice: Choice | None = None
    structured_outputs: StructuredOutputs | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_off(cls, data: Any) -> Any:
        """Takes out samplers that are off; Problem for one that is on."""
        if not isinstance(data, dict):
            return data
        refuse_what_is_on(data)
        return {name: value for name, value in data.items() if name not in OFF}

    def changes(self) -> dict[str, Any]:
        """Fields of `Sampling` that the request sets, None for those that it does not; without constraint."""
        limits = [given for given in (self.max_tokens, self.n_predict) if given is not None]
        penalties = [given for given in (self.repeat_penalty, self.repetition_penalty) if given is not None]
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": 0 if self.top_k == -1 else self.top_k,
            "min_p": self.min_p,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "repeat_penalty": _one("repeat_penalty", penalties),
            "repeat_last_n": self.repeat_last_n,
            "logit_bias": self._biases(),
            "seed": self.seed if self.seed is None or self.seed >= -1 else self.seed % SEEDS,
            "stop": stop or None,
            "max_tokens": _one("max_tokens", limits),
            "thinking_budget": self.budget or None,
            "ignore_eos": self.ignore_eos,
        }

    def constraint(self, *further: tuple[str, str, Any]) -> dict[str, Any]:
        """The field of `Sampling` that constrains the answer, if one does; Problem for two.

        further: what the dialect's own fields ask for: the name of each, the field of `Sampling` and its value.
        """
        structured = self.structured_outputs or StructuredOutputs(json=None)
        choices = [(name, choice) for name, choice in (("guided_choice", self.guided_choice),
                   ("structured_outputs", structured.choice)) if choice is not None]  # fmt: skip
        asked = [
            *further,
            ("grammar", "grammar", self.grammar or None),
            ("json_schema", "schema", self.json_schema),
            ("guided_json", "schema", self.guided_json),
            ("guided_regex", "regex", self.guided_regex),
            ("guided_grammar", "grammar", self.guided_grammar),
            ("structured_outputs", "schema", structured.json_),
            ("structured_outputs", "regex", structured.regex),
            ("structured_outputs", "grammar", structured.grammar),
            *((name, "grammar", one_of(choice)) for name, choice in choices),
        ]
        given = [(name, field, value) for name, field, value in asked if value is not None]
        if len(given) > 1:
            names = " and ".join(dict.fromkeys(name for name, _, _ in given))
            raise Problem(400, f"{names}: an answer can have one format, give one of them", param=given[1][0])
        return {field: value for _, field, value in given}

    @property
    def budget(self) -> int | None:
        """How many tokens the model may think: 0 is not at all, -1 as many as it likes."""
        names = (self.thinking_budget, self.thinking_budget_tokens, self.reasoning_budget_tokens)
        budget: int | None = _one("thinking_budget", [given for given in names if given is not None])
        return budget

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def _biases(self) -> dict[int, float] | None:
        if self.logit_bias is None:
            return None
        for key in self.logit_bias:
            if not key.isdecimal() or not key.isascii() or len(key) > 9:
                raise Problem(400, "Invalid key in 'logit_bias': keys are token ids, as \"50256\"", param="logit_bias")
        return {int(key): value for key, value in self.logit_bias.items()}


def refuse_what_is_on(data: Mapping[str, object]) -> None:
    """Problem for a sampler of others that sotol lacks, where it is on."""
    for name in OFF.keys() & data.keys():
        value = data[name]
        if value is not None and not any(value == off and type(value) in (type(off), int, float) for off in OFF[name]):
            raise Problem(400, f"{name} is not supported by this server: leave it out", param=name)


def one_of(texts: Sequence[str]) -> str:
    """A grammar in Lark's notation of one of these texts."""
    return "start: " + " | ".join(json.dumps(text) for text in texts)


def _one(name: str, given: list[Any]) -> Any:
    """The value of a field that has several names; Problem if they disagree."""
    if len(set(given)) > 1:
        raise Problem(400, f"{name} is given twice, by two names, with different values", param=name)
    return given[0] if given else None
