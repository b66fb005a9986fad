"""How answers are sampled where a request does not say: the request's word, the operator's, the makers', sotol's."""

import asyncio
import logging
import threading

import httpx
import pytest
from tests.support.scripted import scripted
from tests.support.serving import served

from sotol import LLM, Sampling
from sotol.server import Models, Offered, Served, create_app
from sotol.server.defaults import recommended, sampling_of

GGUF = {"general.sampling.temp": 0.6, "general.sampling.top_k": 20, "general.sampling.penalty_repeat": 1.1}
FOLDER = {"generation_config": {"temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.05, "eos_token_id": [1]}}


def test_what_makers_recommend() -> None:
    assert recommended({}) == {}
    assert recommended(GGUF) == {"temperature": 0.6, "top_k": 20, "repeat_penalty": 1.1}
    assert recommended(FOLDER) == {"temperature": 0.7, "top_p": 0.8, "repeat_penalty": 1.05}


def test_what_can_not_be_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert recommended({**GGUF, "general.sampling.temp": -1.0, "general.sampling.top_p": "much"}) == {
            "top_k": 20, "repeat_penalty": 1.1,
        }  # fmt: skip
    assert [message.split(":")[0] for message in caplog.messages] == ["the model's own sampling is not used"] * 2
    assert recommended({"generation_config": "x"}) == {}


def test_who_is_heard() -> None:
    assert sampling_of({}) == Sampling()
    assert sampling_of(GGUF, {"temperature": 0.1, "top_p": None}) == Sampling(
        temperature=0.1, top_k=20, repeat_penalty=1.1
    )
    with scripted("Hi", metadata=GGUF) as llm:
        assert Served("a", llm).defaults == sampling_of(GGUF)
        assert Served("a", llm, sampling=Sampling(top_k=3)).defaults == Sampling(top_k=3)


def test_a_request_is_heard_first() -> None:
    with scripted("a" * 50, metadata={"general.sampling.temp": 0.0}) as llm:
        chosen = Served("a", llm, sampling=sampling_of(llm.metadata, {"max_tokens": 3}))
        with served(create_app([chosen])) as url, httpx.Client(base_url=url) as http:
            body = {"messages": [{"role": "user", "content": "x"}]}
            for more, length in (({}, 3), ({"max_tokens": 7}, 7), ({"max_tokens": None}, 3)):
                said = http.post("/v1/chat/completions", json={**body, **more}).json()
                assert len(said["choices"][0]["message"]["content"]) == length


def test_a_server_prepares_for_its_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The template is compiled, and the vocabulary known, without any."""
    done = threading.Event()
    with scripted("Hi") as llm:
        warm = Served.warm

        def noted(one: Served) -> None:
            warm(one)
            done.set()

        monkeypatch.setattr(Served, "warm", noted)
        with served(create_app([Served("a", llm)])):
            assert done.wait(20)
        assert llm.template._compiled
        assert llm._grammars._trie is not None


def test_a_model_that_the_server_loads_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its load: the application's start prepares those that it was given loaded."""
    warmed = list[str]()
    monkeypatch.setattr(Served, "warm", lambda one: warmed.append(one.name))

    async def life(llm: LLM) -> None:
        models = Models([Offered("offered", lambda _: llm), Served("given", llm)])
        (await models.open("offered")).close()
        app = create_app(models)
        async with app.router.lifespan_context(app), asyncio.timeout(20):
            while "given" not in warmed:
                await asyncio.sleep(0.001)
        await models.close()

    with scripted("Hi") as llm:
        asyncio.run(life(llm))
    assert warmed == ["offered", "given"]


def test_a_model_that_can_not_chat_is_served_all_the_same() -> None:
    with scripted("Hi", template="{{ nope(") as llm:
        Served("a", llm).warm()
        with served(create_app([Served("a", llm)])) as url:
            assert httpx.get(f"{url}/v1/models").status_code == 200
