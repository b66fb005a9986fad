"""The application itself: what it is made of, how it is embedded, what it says of itself."""

import asyncio
import subprocess
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Scope
from tests.support.scripted import scripted
from tests.support.serving import served

from sotol import LLM, Completion
from sotol.server import Served, create_app
from sotol.server.app import ROUTES

MESSAGES = [{"role": "user", "content": "hi"}]


def test_one_model_by_its_file() -> None:
    """An LLM is served under its file's name, and left open."""
    with scripted("Hello") as llm:
        with served(create_app(llm)) as url:
            assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == "scripted"
            body = {"messages": MESSAGES}
            assert httpx.post(f"{url}/v1/chat/completions", json=body).json()["model"] == "scripted"
        assert llm.chat(MESSAGES).text == "Hello"


def test_what_it_loaded_it_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    closed, close = [], LLM.aclose

    async def noted(llm: LLM) -> None:
        closed.append(llm.path.name)
        await close(llm)

    monkeypatch.setattr(LLM, "aclose", noted)
    with served(create_app("smollm2")) as url:
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": "The sea", "max_tokens": 1}, timeout=60)
        assert answer.status_code == 200
        assert closed == []
    assert closed == ["SmolLM2-135M-Instruct.Q4_1.gguf"]


def test_in_another_application() -> None:
    with scripted("Hello") as llm:
        around = Starlette(routes=[Mount("/ai", app=create_app(llm))])
        with served(around) as url:
            answer = httpx.post(f"{url}/ai/v1/chat/completions", json={"messages": MESSAGES}).json()
            assert answer["choices"][0]["message"]["content"] == "Hello"
            assert httpx.post(f"{url}/ai/v1/messages", json={}).json()["type"] == "error"
            assert httpx.post(f"{url}/ai/v1/messages/x", json={}).json()["type"] == "error"
            assert list(httpx.get(f"{url}/ai/api/x").json()) == ["error"]


class Watching:
    """Surroundings that note what they are told."""

    def __init__(self) -> None:
        self.finished_answers: list[tuple[str, str, str]] = []

    def client(self, scope: Scope) -> Hashable:
        key: bytes = dict(scope["headers"]).get(b"x-api-key", b"nobody")
        return key

    def owner(self, _: Scope, /) -> str:
        return ""

    def request_id(self, scope: Scope) -> str | None:
        return "req_1" if scope["type"] == "http" else None

    def finished(self, scope: Scope, model: str, completion: Completion) -> None:
        self.finished_answers.append((scope["path"], model, completion.text))


ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "n": 2},
    "/v1/completions": {"prompt": ["a", "b"], "max_tokens": 2},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"model": "m", "messages": MESSAGES, "max_tokens": 100},
    "/api/chat": {"model": "m", "messages": MESSAGES},
}


def test_surroundings() -> None:
    around = Watching()
    with scripted("Hello") as llm, served(create_app([Served("m", llm)], around=around)) as url:
        for path, body in ASKED.items():
            text, count = {"/v1/completions": ("HH", 2), "/v1/chat/completions": ("Hello", 2)}.get(path, ("Hello", 1))
            for stream in (False, True):
                around.finished_answers.clear()
                assert httpx.post(url + path, json={**body, "stream": stream}).status_code == 200
                assert around.finished_answers == [(path, "m", text)] * count
        refused = httpx.post(f"{url}/v1/messages", json={})
        assert refused.json()["request_id"] == "req_1"
        kept = httpx.post(f"{url}/v1/responses", json={"input": "hi"}, headers={"x-api-key": "a"}).json()["id"]
        for key, status in (("a", 200), ("b", 404)):  # a response is of the client that made it
            assert httpx.get(f"{url}/v1/responses/{kept}", headers={"x-api-key": key}).status_code == status


def test_its_description(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.path.replace(":path}", "}"), route.method) for route in ROUTES}
    assert "sotol__" not in http.get("/openapi.json").text
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)
    root = {"components": document["components"]}
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert jsonschema.Draft202012Validator({**root, "$ref": f"#/components/schemas/{name}"})
    chat = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator({**root, **chat})
    assert validator.is_valid({"messages": MESSAGES, "temperature": None, "n": 2})
    bad: dict[str, Any]
    for bad in ({"n": 1}, {"messages": []}, {"messages": MESSAGES, "n": 0}, {"messages": MESSAGES, "colour": 1}):
        assert not validator.is_valid(bad)
    error = {"$ref": "#/components/schemas/ErrorOfOpenai"}
    assert jsonschema.Draft202012Validator({**root, **error}).is_valid(http.post("/v1/completions", json={}).json())


def test_the_documentation_has_all_paths() -> None:
    page = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text(encoding="utf-8")
    for route in ROUTES:
        path = route.path.replace(":path}", "}").replace("/{id}/input_items", "").replace("/{id}", "")
        assert f"`{path}`" in page


def test_importing_sotol_needs_no_server() -> None:
    code = (
        "import sys, sotol.server; from sotol import LLM;"
        "print([name for name in ('starlette', 'pydantic', 'anyio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_loop_is_free_while_a_template_runs() -> None:
    """Another request is answered while one renders."""
    import threading

    with scripted("Hello") as llm, served(create_app([Served("m", llm)])) as url:
        begun, may = threading.Event(), threading.Event()
        turn = llm.turn

        def slow(messages: Any, **options: Any) -> Any:
            if messages[0]["content"] == "slow":
                begun.set()
                may.wait(60)
            return turn(messages, **options)

        llm.turn = slow  # type: ignore[method-assign]

        async def scenario() -> None:
            async with httpx.AsyncClient(base_url=url, timeout=60) as client:
                path, body = "/v1/chat/completions", {"messages": [{"role": "user", "content": "slow"}]}
                first = asyncio.ensure_future(client.post(path, json=body))
                await asyncio.to_thread(begun.wait, 60)
                second = await client.post(path, json={"messages": MESSAGES})
                assert (second.status_code, first.done()) == (200, False)
                may.set()
                assert (await first).status_code == 200

        asyncio.run(scenario())
