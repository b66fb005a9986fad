"""Completions with OpenAI's own client: prompts of every kind, every option, whole and as a stream."""

from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from tests.support.serving import served

from sotol import LLM
from sotol.server import create_app

# What the model says begins anew where no `<|assistant|>` is in the prompt, so that it says one letter again and again.


def test_a_completion(client: OpenAI) -> None:
    answer = client.completions.create(model="greeting", prompt="ab", max_tokens=3)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, choice.index, choice.logprobs) == ("HHH", "length", 0, None)
    assert (answer.object, answer.id[:5]) == ("text_completion", "cmpl-")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 3)
    ids = list(b"ab")
    again = client.completions.create(model="greeting", prompt=ids, max_tokens=3)
    assert again.choices[0].text == "HHH"
    assert again.usage is not None
    assert again.usage.prompt_tokens == 2


@pytest.mark.parametrize("prompt", [["ab", "c"], [[97, 98], [99]]])
def test_several_prompts(client: OpenAI, prompt: Any) -> None:
    whole = client.completions.create(model="greeting", prompt=prompt, max_tokens=2, n=2, echo=True)
    assert [(choice.index, choice.text) for choice in whole.choices] == [
        (0, "abHH"), (1, "abHH"), (2, "cHH"), (3, "cHH"),
    ]  # fmt: skip
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (3, 8)
    texts = [""] * 4
    options: Any = {"stream_options": {"include_usage": True}}
    *chunks, last = client.completions.create(
        model="greeting", prompt=prompt, max_tokens=2, n=2, echo=True, stream=True, **options
    )
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 8)
    assert [chunk.choices[0].finish_reason for chunk in chunks].count("length") == 4


def test_logprobs(client: OpenAI) -> None:
    whole = client.completions.create(model="greeting", prompt="ab", max_tokens=3, logprobs=2).choices[0]
    assert whole.logprobs is not None
    assert (whole.logprobs.tokens, whole.logprobs.text_offset) == (["H", "H", "H"], [0, 1, 2])
    assert whole.logprobs.top_logprobs is not None
    assert [next(iter(top)) for top in whole.logprobs.top_logprobs] == ["H"] * 3
    assert {len(top) for top in whole.logprobs.top_logprobs} == {2}
    tokens: list[str] = []
    offsets: list[int] = []
    for chunk in client.completions.create(model="greeting", prompt="ab", max_tokens=3, logprobs=0, stream=True):
        if chunk.choices[0].logprobs is not None:
            tokens += chunk.choices[0].logprobs.tokens or []
            offsets += chunk.choices[0].logprobs.text_offset or []
    assert (tokens, offsets) == (["H", "H", "H"], [0, 1, 2])


def test_the_best_of_several(smollm2: LLM) -> None:
    with served(create_app(smollm2)) as url, OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        options: Any = {"model": smollm2.path.stem, "prompt": "The best pet is", "max_tokens": 6, "seed": 5}
        every = client.completions.create(**options, n=4, logprobs=0)
        best = client.completions.create(**options, n=2, best_of=4)
        assert every.usage is not None
        assert best.usage is not None
        assert best.usage.completion_tokens == every.usage.completion_tokens  # all that was generated counts

        def likelihood(choice: Any) -> float:
            logprobs: list[float] = choice.logprobs.token_logprobs
            return sum(logprobs) / len(logprobs)

        ranked = sorted(every.choices, key=likelihood, reverse=True)
        assert [choice.text for choice in best.choices] == [choice.text for choice in ranked[:2]]
        assert {choice.logprobs for choice in best.choices} == {None}
        expected = smollm2.generate("The best pet is", max_tokens=6, seed=5)
        chunks = client.completions.create(**options, stream=True)
        assert "".join(chunk.choices[0].text for chunk in chunks) == expected.text == every.choices[0].text


BAD = {
    "no prompt": ({}, "prompt"),
    "null": ({"prompt": None}, "prompt"),
    "no prompts": ({"prompt": []}, "prompt"),
    "an empty prompt": ({"prompt": ""}, "prompt"),
    "no ids": ({"prompt": [[1], []]}, "prompt[1]"),
    "a negative id": ({"prompt": [-1]}, "prompt[0]"),
    "no such id": ({"prompt": [100000]}, "prompt"),
    "a mixture": ({"prompt": ["a", 1]}, "prompt[1]"),
    "a suffix": ({"prompt": "a", "suffix": "b"}, "suffix"),
    "fewer than n": ({"prompt": "a", "best_of": 2, "n": 3}, "best_of"),
    "a stream of the best": ({"prompt": "a", "best_of": 2, "stream": True}, "best_of"),
    "the prompt's logprobs": ({"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
    "too many of all": ({"prompt": ["a", "b", "c"], "n": 6}, "n"),
    "messages": ({"prompt": "a", "messages": []}, "messages"),
}


@pytest.mark.parametrize(("body", "param"), BAD.values(), ids=BAD)
def test_bad_requests(http: httpx.Client, body: dict[str, Any], param: str) -> None:
    answer = http.post("/v1/completions", json={"model": "greeting", **body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param, answer.text


def test_a_prompt_that_is_too_long(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="greeting", prompt=["a", "b" * 4096])
    assert refused.value.code == "context_length_exceeded"
    assert "4096" in refused.value.message
    at_most = client.completions.create(model="greeting", prompt="b" * 4095)
    assert (at_most.choices[0].text, at_most.choices[0].finish_reason) == ("H", "length")
