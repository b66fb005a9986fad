"""The models that a server tells of, with the clients of OpenAI and Anthropic."""

import asyncio

import anthropic
import httpx
import openai
import pytest
from openai import OpenAI

from sotol import LLM
from sotol.server.models import ANY, Models, Served
from sotol.server.problems import Problem

NAMES = ["greeting", "echo", "long", "tools", "thinks"]


def test_models_for_openai(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == NAMES
    model = client.models.retrieve("greeting-alias")
    assert (model.id, model.object, model.owned_by) == ("greeting", "model", "sotol")
    assert model.model_dump()["max_model_len"] == 4096
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/../etc/passwd")


def test_models_for_anthropic(url: str) -> None:
    with anthropic.Anthropic(base_url=url, api_key="none") as client:
        assert [model.id for model in client.models.list()] == NAMES
        assert client.models.retrieve("greeting").display_name == "greeting"


def test_no_such_path(http: httpx.Client) -> None:
    assert http.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    assert http.get("/v1/messages").json()["error"]["type"] == "invalid_request_error"
    assert http.post("/v1/messages/nothing").json()["type"] == "error"
    assert list(http.get("/api/nothing").json()) == ["error"]
    answer = http.get("/v1/chat/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def loaded(models: Models) -> LLM:
    return next(iter(models.loaded().values()))


def found_by(models: Models, name: str | None) -> Served:
    async def found() -> Served:
        lease = await models.open(name)
        lease.close()
        return lease.thing

    return asyncio.run(found())


def test_names(models: Models) -> None:
    llm = loaded(models)
    served = Models([Served("a", llm, ("x",)), Served("b/c", llm, (ANY,))])
    for name, found in [("a", "a"), ("x", "a"), ("a:latest", "a"), ("b/c", "b/c"), ("gpt-4", "b/c")]:
        assert found_by(served, name).name == found
    with pytest.raises(Problem, match="one of 'a', 'b/c'"):
        found_by(served, None)
    with pytest.raises(Problem, match="this server has no model"):
        found_by(Models([]), "a")
    assert found_by(Models([Served("a", llm)]), None).name == "a"


def test_names_that_can_not_be(models: Models) -> None:
    llm = loaded(models)
    with pytest.raises(ValueError, match="two models have the name 'x'"):
        Models([Served("a", llm, ("x",)), Served("x", llm)])
    for name in ("", " a", "a\nb", "x" * 1000):
        with pytest.raises(ValueError, match="can't be a model's name"):
            Served(name, llm)
