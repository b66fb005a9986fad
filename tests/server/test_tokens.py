"""Tokens and templates over HTTP, as llama-server and vLLM have them."""

from typing import Any

import httpx
import pytest

HI = [{"role": "user", "content": "hi"}]


def post(http: httpx.Client, path: str, **body: Any) -> Any:
    answer = http.post(path, json={"model": "greeting", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_tokenize(http: httpx.Client) -> None:
    assert post(http, "/tokenize", content="ab<|end|>") == {"tokens": [97, 98, 256], "count": 3, "max_model_len": 4096}
    assert post(http, "/tokenize", content="<|end|>", parse_special=False)["tokens"] == list(b"<|end|>")
    assert post(http, "/tokenize", prompt="ab", add_special_tokens=False)["count"] == 2
    assert post(http, "/tokenize", prompt="a<|end|>", return_token_strs=True)["token_strs"] == ["a", "<|end|>"]
    pieces = post(http, "/tokenize", content="aö", with_pieces=True)["tokens"]
    assert pieces == [{"id": 97, "piece": "a"}, {"id": 195, "piece": [195]}, {"id": 182, "piece": [182]}]
    assert post(http, "/tokenize", messages=HI)["tokens"] == [258, 104, 105, 256, 259]


def test_tokens_around_a_text(serve: Any) -> None:
    metadata = {"tokenizer.ggml.bos_token_id": 257, "tokenizer.ggml.add_bos_token": True}
    with httpx.Client(base_url=serve("x", metadata=metadata)) as http:
        cases: list[tuple[dict[str, Any], list[int]]] = [
            ({"content": "a"}, [97]),
            ({"content": "a", "add_special": True}, [257, 97]),
            ({"prompt": "a"}, [257, 97]),
            ({"prompt": "a", "add_special_tokens": False}, [97]),
        ]
        for body, tokens in cases:
            assert http.post("/tokenize", json=body).json()["tokens"] == tokens


def test_detokenize(http: httpx.Client) -> None:
    for text in ("wörld 👋", "<|end|>", ""):
        tokens = post(http, "/tokenize", content=text)["tokens"]
        assert post(http, "/detokenize", tokens=tokens) == {"content": text, "prompt": text}


def test_templates(http: httpx.Client) -> None:
    assert post(http, "/apply-template", messages=HI) == {"prompt": "<|user|>hi<|end|><|assistant|>"}
    whole = post(http, "/apply-template", messages=HI, add_generation_prompt=False)
    assert whole == {"prompt": "<|user|>hi<|end|>"}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": "a", "prompt": "b"}, "content"),
        ("/tokenize", {"content": 5}, "content"),
        ("/detokenize", {"tokens": [1000]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("/apply-template", {"messages": []}, "messages"),
        ("/apply-template", {"messages": [{"role": "user", "content": "x"}], "x": 1}, "x"),
    ],
)
def test_bad_requests(http: httpx.Client, path: str, body: Any, param: str) -> None:
    answer = http.post(path, json={"model": "greeting", **body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param, answer.text
