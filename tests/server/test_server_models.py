"""Several models in one server: loaded when they are asked for, unloaded when they are not; what waits is told so."""

import asyncio
import json
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from tests.support.hub import FakeHub, cache, hub
from tests.support.scripted import scripted, scripted_model
from tests.support.serving import served, until

from sotol import LLM
from sotol.errors import SotolError
from sotol.progress import Progress
from sotol.server import Models, Offered, Served, create_app, leases
from sotol.server.pool import Closed

__all__ = ["cache", "hub"]
HI: Any = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "hi", "max_tokens": 3},  # a script knows no prompt without a template
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 50},
    "/api/chat": {"messages": HI},
    "/api/generate": {"prompt": "hi"},
}


class Shelf:
    """Models that answer with their name, and what became of them. held: loading waits for it."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.open: dict[str, LLM] = {}
        self.held = threading.Event()
        self.held.set()
        self.broken: set[str] = set()

    def offered(self, name: str, size: int = 100, keep: float | None = None, text: str = "") -> Offered:
        def load(progress: Progress) -> LLM:
            progress("reading", 0, 2)
            self.loads.append(name)
            assert self.held.wait(60)
            if name in self.broken:
                raise SotolError(f"the file of {name} is broken")
            model = scripted_model(text or f"I am {name}.")
            model.memory = size
            llm = self.open[name] = LLM(model)
            close = llm.close

            def closed() -> None:
                self.open.pop(name, None)
                close()

            llm.close = closed  # type: ignore[method-assign]
            return llm

        return Offered(name, load, lambda: size, None, (f"{name}-alias",), keep_alive=keep)

    @contextmanager
    def serving(self, *models: Offered | Served, **options: Any) -> Iterator[httpx.Client]:
        made = Models(models, **options)
        with served(create_app(made)) as url, httpx.Client(base_url=url, timeout=60) as client:
            yield client
        asyncio.run(made.close())
        assert self.open == {}


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def states(client: httpx.Client) -> dict[str, str]:
    return {model["id"]: model["status"] for model in client.get("/v1/models").json()["data"]}


def said(client: httpx.Client, name: str, **more: Any) -> str:
    answer = client.post("/v1/chat/completions", json={"model": name, "messages": HI, **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_loaded_when_asked_for(shelf: Shelf) -> None:
    with shelf.serving(shelf.offered("a"), shelf.offered("b")) as client:
        assert states(client) == {"a": "unloaded", "b": "unloaded"}
        assert said(client, "b-alias") == "I am b."
        assert states(client) == {"a": "unloaded", "b": "ready"}
        a, b = client.get("/v1/models").json()["data"]
        assert (a["memory"], a["idle"], a.get("max_model_len")) == (0, None, None)
        assert (b["memory"], b["expires"], b["max_model_len"]) == (100, None, 4096)
        assert b["idle"] >= 0
        assert client.get("/v1/models/a").json()["status"] == "unloaded"  # telling of it does not load it
        assert shelf.loads == ["b"]


@pytest.mark.parametrize("path", list(BODIES))
def test_from_every_dialect(path: str, shelf: Shelf) -> None:
    with shelf.serving(shelf.offered("a"), shelf.offered("b")) as client:
        answer = client.post(path, json={"model": "a", "stream": False, **BODIES[path]})
        assert ("III" if path == "/v1/completions" else "I am a.") in answer.text
        assert shelf.loads == ["a"]
    for path in ("/tokenize", "/apply-template"):
        with shelf.serving(shelf.offered("a")) as client:
            assert client.post(path, json={"model": "a", "messages": HI}).status_code == 200


def test_many_at_first_load_once(shelf: Shelf) -> None:
    shelf.held.clear()

    async def scenario(url: str) -> list[str]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            body = {"model": "a", "messages": HI}
            tasks = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(8)]
            while not shelf.loads:
                await asyncio.sleep(0.01)
            assert (await client.get("/v1/models")).json()["data"][0]["status"] == "loading"
            [one] = (await client.get("/api/ps")).json()["models"]
            assert (one["name"], one["status"]) == ("a:latest", "loading")
            shelf.held.set()
            return [answer.json()["choices"][0]["message"]["content"] for answer in await asyncio.gather(*tasks)]

    with shelf.serving(shelf.offered("a"), shelf.offered("b")) as client:
        assert asyncio.run(scenario(str(client.base_url))) == ["I am a."] * 8
        assert shelf.loads == ["a"]


def test_idle_models_go(shelf: Shelf) -> None:
    with shelf.serving(shelf.offered("a"), shelf.offered("b", keep=math.inf), keep_alive=0.05) as client:
        assert said(client, "a") == "I am a."
        assert said(client, "b") == "I am b."
        until(lambda: states(client) == {"a": "unloaded", "b": "ready"})
        assert list(shelf.open) == ["b"]
        assert said(client, "a") == "I am a."


def test_memory(shelf: Shelf) -> None:
    models = [shelf.offered(name) for name in "abc"]
    with shelf.serving(*models, shelf.offered("large", size=1000), memory=200) as client:
        for name in "abac":
            assert said(client, name) == f"I am {name}."
            assert sum(model["memory"] for model in client.get("/v1/models").json()["data"]) <= 200
        assert states(client) == {"a": "ready", "b": "unloaded", "c": "ready", "large": "unloaded"}
        answer = client.post("/v1/chat/completions", json={"model": "large", "messages": HI})
        assert answer.status_code == 500
        assert answer.json()["error"]["message"] == "large takes 1000 bytes of memory, more than there may be: 200"
        assert states(client)["large"] == "failed"


def test_a_stream_keeps_its_model(shelf: Shelf) -> None:
    """The other model waits until the stream is over, also where its client goes away."""
    for read in (True, False):
        with shelf.serving(shelf.offered("long", text="x" * 2000), shelf.offered("b"), memory=100) as client:
            body = {"model": "long", "messages": HI, "stream": True}
            other: list[str] = []
            thread = threading.Thread(target=lambda other=other: other.append(said(client, "b")))
            with client.stream("POST", "/v1/chat/completions", json=body) as stream:
                lines = stream.iter_lines()
                next(lines)
                thread.start()
                until(lambda: states(client)["b"] == "loading")
                assert list(shelf.open) == ["long"]
                if read:
                    assert [line for line in lines if line][-1] == "data: [DONE]"
            thread.join(60)
            assert other == ["I am b."]
            assert list(shelf.open) == ["b"]


def test_failures(shelf: Shelf) -> None:
    shelf.broken.add("a")
    with shelf.serving(shelf.offered("a"), shelf.offered("b")) as client:
        for path in BODIES:
            answer = client.post(path, json={"model": "a", "stream": False, **BODIES[path]})
            assert answer.status_code == 500
            assert "the file of a is broken" in answer.text
        [entry, _] = client.get("/v1/models").json()["data"]
        assert (entry["status"], entry["error"]) == ("failed", "the file of a is broken")
        shelf.broken.clear()
        assert said(client, "a") == "I am a."
        assert "error" not in client.get("/v1/models/a").json()


# ---- what waits is told


@pytest.mark.parametrize("path", [path for path in BODIES if path.startswith("/v1")])
def test_streams_are_told(path: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.01)
    shelf.held.clear()
    with shelf.serving(shelf.offered("a"), shelf.offered("b")) as client:
        body = {"model": "a", "stream": True, **BODIES[path]}
        with client.stream("POST", path, json=body) as stream:
            assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
            lines = stream.iter_lines()
            first = [next(lines) for _ in range(4)]
            assert first[0] == first[2] if path != "/v1/messages" else first[0] == "event: ping"
            assert first[0] in (": loading the model", "event: ping")
            shelf.held.set()
            rest = list(lines)
    text = "".join(str(_texts(json.loads(line[6:]))) for line in rest if line.startswith("data: {"))
    assert text == ("III" if path == "/v1/completions" else "I am a.")


def _texts(event: Mapping[str, Any]) -> str:
    """What an event of any dialect says."""
    if "choices" in event:
        [choice] = event["choices"] or [{}]
        return choice.get("text") or choice.get("delta", {}).get("content") or ""
    if event.get("type") == "content_block_delta":
        return str(event["delta"].get("text", ""))
    return str(event["delta"]) if event.get("type") == "response.output_text.delta" else ""


def test_clients_understand_that(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.01)
    for name in "ab":
        shelf.held.clear()
        timer = threading.Timer(0.1, shelf.held.set)
        with shelf.serving(shelf.offered("a"), shelf.offered("b")) as client:
            url = str(client.base_url).rstrip("/")
            timer.start()
            if name == "a":
                with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as one:
                    stream = one.chat.completions.create(model="a", messages=HI, stream=True)
                    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            else:
                with (
                    anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as other,
                    other.messages.stream(model="b", max_tokens=50, messages=HI) as events,
                ):
                    text = "".join(events.text_stream)
            assert text == f"I am {name}."
        timer.join()


def test_an_error_after_a_stream_has_begun(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What loading fails with, and what is wrong with the request, come as the stream's last event."""
    monkeypatch.setattr(leases, "FIRST_SECONDS", 0.01)
    for broken, more, said_ in ((True, {}, "the file of a is broken"), (False, {"n": 99}, "n asks for 99 answers")):
        shelf.held.clear()
        shelf.broken = {"a"} if broken else set()
        with shelf.serving(shelf.offered("a"), shelf.offered("b")) as client:
            body = {"model": "a", "stream": True, "messages": HI, **more}
            with client.stream("POST", "/v1/chat/completions", json=body) as stream:
                lines = stream.iter_lines()
                assert next(lines) == ": loading the model"
                shelf.held.set()
                rest = [line for line in lines if line]
            assert rest[0] == "event: error"
            assert said_ in json.loads(rest[1].removeprefix("data: "))["error"]["message"]
            assert len(rest) == 2


def test_a_quick_load_keeps_the_status_of_errors(shelf: Shelf) -> None:
    with shelf.serving(shelf.offered("a"), shelf.offered("b")) as client:
        body = {"model": "a", "stream": True, "messages": HI, "n": 99}
        assert client.post("/v1/chat/completions", json=body).status_code == 400


def test_who_leaves_while_it_loads(shelf: Shelf) -> None:
    """Nobody waits any more: what was not begun is not loaded."""
    shelf.held.clear()
    with shelf.serving(shelf.offered("a"), shelf.offered("b")) as client:
        for name in ("a", "b"):
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/chat/completions", json={"model": name, "messages": HI}, timeout=0.2)
        until(lambda: states(client)["b"] in ("loading", "unloaded"))
        shelf.held.set()
        until(lambda: states(client) == {"a": "ready", "b": "unloaded"})
        assert shelf.loads == ["a"]


# ---- Ollama


def test_ollamas_keep_alive(shelf: Shelf) -> None:
    with shelf.serving(shelf.offered("a"), shelf.offered("b"), keep_alive=1000) as client:
        llama = ollama.Client(host=str(client.base_url))
        first = llama.chat("a", messages=HI, keep_alive="10m")
        assert (first.message.content, first.load_duration != 0) == ("I am a.", True)
        [entry] = client.get("/v1/models").json()["data"][:1]
        assert 590 < entry["expires"] <= 600
        assert llama.chat("a", messages=HI, keep_alive=-1).load_duration == 0
        [loaded] = llama.ps().models
        assert (loaded.model, loaded.size) == ("a:latest", 100)
        assert loaded.expires_at is not None
        assert loaded.expires_at.year == 2318
        llama.chat("a", messages=HI)
        assert 990 < client.get("/v1/models/a").json()["expires"] <= 1000
        assert llama.generate("a", keep_alive=0).done_reason == "unload"
        until(lambda: shelf.open == {})
        assert llama.ps().models == []
        assert llama.generate("b", keep_alive=0).done_reason == "unload"  # which does not load it
        assert llama.generate("b").done_reason == "load"
        assert llama.chat("b", messages=HI, keep_alive=0).message.content == "I am b."
        until(lambda: shelf.open == {})
        assert shelf.loads == ["a", "b"]
        assert [model.model for model in llama.list().models] == ["a:latest", "b:latest"]
        with pytest.raises(ollama.ResponseError, match="does not exist"):
            llama.generate("c", keep_alive=0)
        llama._client.close()
    bad = {"model": "a", "prompt": "x", "keep_alive": "soon"}
    with shelf.serving(shelf.offered("a")) as client:
        assert client.post("/api/generate", json=bad).status_code == 400


def test_the_operators_for_ever(shelf: Shelf) -> None:
    """A request can't shorten it, but by 0, as `sotol stop` does."""
    with shelf.serving(shelf.offered("a"), shelf.offered("b")) as client:
        client.post("/api/generate", json={"model": "a", "prompt": "x", "keep_alive": 0.01, "stream": False})
        assert client.get("/v1/models/a").json()["expires"] is None
        client.post("/api/generate", json={"model": "a", "keep_alive": "0s"})
        until(lambda: states(client)["a"] == "unloaded")


def test_one_that_was_given_loaded_stays(shelf: Shelf) -> None:
    with scripted("Hello.") as llm, shelf.serving(Served("a", llm), shelf.offered("b")) as client:
        client.post("/api/generate", json={"model": "a", "keep_alive": 0})
        assert said(client, "a") == "Hello."
        assert states(client) == {"a": "ready", "b": "unloaded"}


def test_pulling_is_forbidden(shelf: Shelf) -> None:
    with shelf.serving(shelf.offered("a")) as client:
        answer = client.post("/api/pull", json={"model": "org/ggufs"})
        assert (answer.status_code, "--allow-pull" in answer.json()["error"]) == (403, True)


def test_pulling(shelf: Shelf, hub: FakeHub) -> None:
    with shelf.serving(shelf.offered("a"), more=shelf.offered) as client:
        llama = ollama.Client(host=str(client.base_url))
        lines = list(llama.pull("org/ggufs:Q8_0", stream=True))
        assert (lines[0].status, lines[-1].status) == ("pulling manifest", "success")
        assert (lines[-2].total, lines[-2].completed) == (10000, 10000)
        assert states(client) == {"a": "unloaded", "org/ggufs:Q8_0": "unloaded"}
        assert said(client, "org/ggufs:Q8_0") == "I am org/ggufs:Q8_0."
        assert llama.pull("hf.co/org/ggufs:q8_0").status == "success"  # it is here
        assert len(states(client)) == 2
        with pytest.raises(ollama.ResponseError, match="knows no model org/none"):
            llama.pull("org/none")
        with pytest.raises(ollama.ResponseError, match="knows no model org/none"):
            list(llama.pull("org/none", stream=True))
        for name in ("nothing", "hf:nothing", ""):
            assert client.post("/api/pull", json={"model": name}).status_code == 400
        llama._client.close()
    assert hub.bodies == 1


# ---- names, and the end


def test_what_an_application_loads_it_closes(shelf: Shelf) -> None:
    with served(create_app([shelf.offered("a"), shelf.offered("b")])) as url:
        with httpx.Client(base_url=url, timeout=60) as client:
            assert said(client, "a") == "I am a."
        assert list(shelf.open) == ["a"]
    assert shelf.open == {}


def test_more_models() -> None:
    with scripted("x") as llm:
        models = Models([Served("a", llm)])
        models.add(Served("b", llm, ("c",)))
        assert [model.name for model in models] == ["a", "b"]
        assert (models.find("c").name, len(models)) == ("b", 2)
        with pytest.raises(ValueError, match="two models have the name 'c'"):
            models.add(Served("c", llm))
        assert len(models) == 2


def test_a_server_that_stops(shelf: Shelf) -> None:
    """Who waits for a model hears of it; what is loaded nevertheless is closed."""
    shelf.held.clear()

    async def scenario() -> None:
        models = Models([shelf.offered("a"), shelf.offered("b")])
        waiting = asyncio.ensure_future(models.open("a"))
        while not shelf.loads:
            await asyncio.sleep(0.01)
        await models.close()
        with pytest.raises(Exception, match="shutting down") as error:
            await waiting
        assert isinstance(error.value.__cause__, Closed)
        shelf.held.set()
        assert models.loading_ended()
        await asyncio.sleep(0.05)
        assert shelf.open == {}

    asyncio.run(scenario())
