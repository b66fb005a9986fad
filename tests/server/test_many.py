"""Many clients at once, of all kinds: each gets its own answer, some go early, some send nonsense; nothing is left."""

import asyncio
import json
import random
from typing import Any

import httpx
from tests.support.scripted import scripted
from tests.support.serving import served, until

from sotol.server import Served, create_app

CLIENTS, EACH = 40, 4
PATHS = ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat")


def body_of(path: str, text: str, stream: bool) -> dict[str, Any]:
    if path == "/v1/responses":
        return {"model": "model", "input": text, "stream": stream}
    return {"model": "model", "messages": [{"role": "user", "content": text}], "stream": stream, "max_tokens": 500}


async def ask(client: httpx.AsyncClient, chance: random.Random, number: int) -> str:
    """One request; what became of it."""
    path, text, stream = chance.choice(PATHS), f"<{number}>" * 30, chance.random() < 0.7
    body = body_of(path, text, stream)
    if path == "/api/chat":
        del body["max_tokens"]
    kind = chance.choices(["whole", "goes", "nonsense"], [7, 2, 1])[0]
    if kind == "nonsense":
        answer = await client.post(path, content=chance.choice([b"{", b'{"model": 5}', b'{"a": NaN}']))
        assert 400 <= answer.status_code < 500
        return kind
    async with client.stream("POST", path, json=body) as response:
        assert response.status_code == 200, await response.aread()
        seen = ""
        async for part in response.aiter_text():
            seen += part
            if kind == "goes" and stream and len(seen) > 300:
                return kind
    assert text_of(path, seen, stream) == text
    return "whole"


def text_of(path: str, seen: str, stream: bool) -> str:
    """What an answer says, whole or as events."""
    if not stream:
        whole = json.loads(seen)
        if path == "/v1/chat/completions":
            return str(whole["choices"][0]["message"]["content"])
        if path == "/api/chat":
            return str(whole["message"]["content"])
        return str((whole["content"] if path == "/v1/messages" else whole["output"][0]["content"])[0]["text"])
    said = ""
    for line in seen.splitlines():
        data = line.removeprefix("data: ")
        event = json.loads(data) if data.startswith("{") else {}
        match path:
            case "/v1/chat/completions" if event:
                said += event["choices"][0]["delta"].get("content") or ""
            case "/v1/messages" if event.get("type") == "content_block_delta":
                said += event["delta"]["text"]
            case "/v1/responses" if event.get("type") == "response.output_text.delta":
                said += event["delta"]
            case "/api/chat":
                said += event["message"]["content"]
    return said


def test_many_clients() -> None:
    def echo(prompt: str) -> str:
        return prompt.rsplit("<|user|>", 1)[-1].split("<|end|>")[0]

    with scripted(echo, sequences=16) as llm, served(create_app([Served("model", llm)])) as url:

        async def one(number: int) -> list[str]:
            chance = random.Random(number)
            async with httpx.AsyncClient(base_url=url, timeout=120) as client:
                return [await ask(client, chance, number * EACH + i) for i in range(EACH)]

        async def scenario() -> list[list[str]]:
            return await asyncio.gather(*(one(number) for number in range(CLIENTS)))

        became = [kind for kinds in asyncio.run(scenario()) for kind in kinds]
        assert set(became) == {"whole", "goes", "nonsense"}
        until(lambda: llm.load().running == llm.load().waiting == 0)
        assert [group.held for group in llm.load().groups] == [0]
