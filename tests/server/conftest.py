"""A server with scripted models that the tests of this folder share, and the real clients."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest
from tests.support.scripted import TEMPLATE, scripted
from tests.support.serving import served

from sotol.server import Models, Served, create_app

# Templates that say how the model writes: as Hermes and Qwen do.
TOOLS = TEMPLATE + "{# <tool_call> </tool_call> #}"
THINKS = TOOLS + "{# <think> </think> #}"
WEATHER = {"name": "weather", "arguments": {"city": "Köln", "days": 2}}
CALL = f"<tool_call>\n{json.dumps(WEATHER, ensure_ascii=False)}\n</tool_call>"
TIME = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
THOUGHT = "<think>\nA number… two?\n</think>\n\nTwo."


def said(prompt: str) -> str:
    """The whole prompt, with its special tokens spelled so that they are text: what the model `echo` answers."""
    return prompt.replace("<|", "<").replace("|>", ">")


def called(prompt: str) -> str:
    """Two calls, or, once there is an answer to a call, what it says."""
    results = prompt.split("<|tool|>")
    return f"I'll look.\n{CALL}\n{TIME}" if len(results) == 1 else f"It is {results[-1].split('<|end|>')[0]}."


@pytest.fixture(scope="package")
def models() -> Iterator[Models]:
    llms = {
        "greeting": scripted("Hello, wörld! 👋"),
        "echo": scripted(said),
        "long": scripted("ab " * 400, context=2048),
        "tools": scripted(called, template=TOOLS),
        "thinks": scripted(THOUGHT, template=THINKS),
    }
    yield Models([Served(name, llm, (f"{name}-alias",)) for name, llm in llms.items()])
    for llm in llms.values():
        llm.close()


@pytest.fixture(scope="package")
def url(models: Models) -> Iterator[str]:
    with served(create_app(models)) as address:
        yield address


@pytest.fixture(scope="package")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="package")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """serve(answer, …): the address of a server with one scripted model, which ends with the test."""
    with ExitStack() as stack:

        def start(answer: Any, **options: Any) -> str:
            llm = stack.enter_context(scripted(answer, **options))
            return stack.enter_context(served(create_app([Served("model", llm)])))

        yield start


def function(name: str, **properties: Any) -> dict[str, Any]:
    """A tool in the form of chat completions."""
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": "It…", "parameters": parameters}}


@pytest.fixture(scope="package")
def functions() -> list[dict[str, Any]]:
    """The tools that the model `tools` calls."""
    return [function("weather", city={"type": "string"}, days={"type": "integer"}), function("time")]
