"""/completion and /props in llama-server's shapes."""

import json
from typing import Any

import httpx
import pytest


def post(http: httpx.Client, status: int = 200, **body: Any) -> Any:
    response = http.post("/completion", json=body)
    assert response.status_code == status, response.text
    return response.json()


def test_a_whole_answer(http: httpx.Client) -> None:
    said = post(http, model="greeting", prompt="<|user|>x<|assistant|>", temperature=0, seed=3, return_tokens=True)
    assert said["content"] == "Hello, wörld! 👋"
    assert bytes(said["tokens"]).decode() == said["content"]
    assert (said["stop"], said["stop_type"], said["stopping_word"], said["truncated"]) == (True, "eos", "", False)
    assert (said["model"], said["index"], said["prompt"]) == ("greeting", 0, "<|user|>x<|assistant|>")
    assert said["tokens_evaluated"] == 3
    assert said["tokens_predicted"] == len(said["content"].encode())
    assert said["generation_settings"]["seed"] == 3
    assert said["generation_settings"]["temperature"] == 0
    assert said["timings"]["predicted_n"] == said["tokens_predicted"]


def test_how_it_ends(http: httpx.Client) -> None:
    prompt = "<|assistant|>"
    assert post(http, model="greeting", prompt=prompt, n_predict=5)["stop_type"] == "limit"
    word = post(http, model="greeting", prompt=prompt, stop=["wör"])
    assert (word["content"], word["stop_type"], word["stopping_word"]) == ("Hello, ", "word", "wör")
    assert post(http, model="greeting", prompt=prompt, n_predict=-1)["content"] == "Hello, wörld! 👋"


def test_prompts_of_all_kinds(http: httpx.Client) -> None:
    assert post(http, model="echo", prompt=["a", 98, "<|assistant|>"])["content"] == "ab<assistant>"
    several = post(http, model="echo", prompt=[["a<|assistant|>"], [98, "<|assistant|>"]])
    assert [(one["index"], one["content"]) for one in several] == [(0, "a<assistant>"), (1, "b<assistant>")]
    assert post(http, model="echo", prompt=["<|assistant|>"])["content"] == "<assistant>"


def test_a_stream(http: httpx.Client) -> None:
    body = {"model": "greeting", "prompt": "<|assistant|>", "stream": True, "n_probs": 1}
    with http.stream("POST", "/completion", json=body) as response:
        lines = [line for line in response.iter_lines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert "".join(event["content"] for event in events) == "Hello, wörld! 👋"
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]
    first = events[0]["completion_probabilities"][0]
    assert (first["id"], first["token"], first["bytes"]) == (72, "H", [72])
    assert first["top_logprobs"][0]["id"] == 72
    assert events[-1]["tokens_predicted"] == events[-2]["tokens_predicted"]


def test_biases_and_forms(http: httpx.Client) -> None:
    prompt = "<|assistant|>"
    assert post(http, model="greeting", prompt=prompt, n_predict=1, logit_bias=[["J", 100]])["content"] == "J"
    assert (
        post(http, model="greeting", prompt=prompt, n_predict=1, logit_bias=[[72, False], [74, 90.0]])["content"] == "J"
    )
    assert post(http, model="greeting", prompt=prompt, n_predict=1, logit_bias={"74": 100})["content"] == "J"
    said = post(http, model="greeting", prompt=prompt, grammar='root ::= "yes" | "no"')
    assert said["content"] in ("yes", "no")
    object_ = post(http, model="greeting", prompt=prompt, json_schema={"enum": [1]})
    assert object_["content"] == "1"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "x", "mirostat": 2}, "mirostat"),
        ({"prompt": "x", "n_predict": 0}, "n_predict"),
        ({"prompt": "x", "grammar": "root ::= 1", "json_schema": {}}, "json_schema"),
        ({"prompt": "x", "temperature": "hot"}, "temperature"),
        ({"prompt": [99999]}, "prompt"),
    ],
)
def test_what_is_refused(http: httpx.Client, body: dict[str, Any], named: str) -> None:
    assert named in json.dumps(post(http, 400, model="greeting", **body)["error"])


def test_what_nobody_knows_is_ignored(http: httpx.Client) -> None:
    more: dict[str, Any] = {
        "cache_prompt": True,
        "id_slot": 0,
        "samplers": ["top_k"],
        "n_keep": 3,
        "whatever": 1,
        "mirostat": 0,
    }
    assert post(http, model="greeting", prompt="<|assistant|>", **more)["content"] == "Hello, wörld! 👋"


def test_props(http: httpx.Client) -> None:
    said = http.get("/props", params={"model": "greeting"}).json()
    assert said["model_alias"] == "greeting"
    assert said["model_path"] == "scripted.gguf"
    assert said["total_slots"] >= 1
    assert "<|assistant|>" in said["chat_template"]
    assert said["eos_token"] == "<|end|>"
    settings = said["default_generation_settings"]
    assert (settings["n_ctx"], settings["params"]["top_k"]) == (4096, 40)
    assert http.get("/props").status_code == 400  # which of several?
    assert http.get("/props", params={"model": "nope"}).status_code == 404
