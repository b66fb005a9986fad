"""`sotol run --server`, `ps` and `stop`, with a server on this machine."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from tests.cli.conftest import FakeTerminal, Sotol
from tests.support.scripted import TEMPLATE, scripted, scripted_model
from tests.support.serving import served, until

from sotol import LLM, Sampling
from sotol.answers.pieces import Content
from sotol.cli.remote import connect
from sotol.cli.repl import Repl
from sotol.cli.server_client import ServerClient
from sotol.errors import SotolError
from sotol.server import Models, Offered, Served, create_app
from sotol.server.guard import protected
from sotol.server.settings import Settings

CALL = '<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>'


def echo(prompt: str) -> str:
    return prompt.rsplit("<|assistant|>", 2)[0].replace("<|", "<").replace("|>", ">")


def other(progress: object) -> LLM:
    del progress
    model = scripted_model("I am other.", context=512)
    model.memory = 5_000_000
    return LLM(model)


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    llms = {
        "echo": scripted(echo),
        "thinks": scripted("<think>\nTwo?\n</think>\n\nTwo.", template=TEMPLATE + "{# <think> </think> #}"),
        "calls": scripted("Look: " + CALL, template=TEMPLATE + "{# <tool_call> </tool_call> #}"),
    }
    made = Models([*(Served(name, llm, (f"my-{name}",)) for name, llm in llms.items()), Offered("other", other)])
    yield made
    asyncio.run(made.close())
    for llm in llms.values():
        llm.close()


@pytest.fixture(scope="module")
def url(models: Models) -> Iterator[str]:
    with served(create_app(models)) as address:
        yield address


def test_an_answer(sotol: Sotol, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = sotol("run", "--server", url, "my-echo", "What", "is", "it?", "--system", "Be brief.")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "<system>Be brief.<end><user>What is it?<end>\n"
    monkeypatch.setenv("SOTOL_SERVER", f"{url}/v1/")
    assert sotol("run", "-m", "thinks", "hi").stdout == "<think>\nTwo?\n</think>\n\nTwo.\n"
    assert sotol("run", "thinks", "hi", "--hide-thinking").stdout == "Two.\n"
    assert sotol("run", "-", stdin="from a pipe").stdout == "<user>from a pipe<end>\n"  # the server's first model
    assert sotol("run", "echo", "abc", "--raw", "-n", "3").stdout == "aaa\n"


def test_figures(sotol: Sotol, url: str) -> None:
    result = sotol("run", "--server", url, "echo", "hi", "--json", "--seed", "7")
    record = json.loads(result.stdout)
    assert (record["model"], record["text"], record["finish_reason"]) == ("echo", "<user>hi<end>", "stop")
    assert record["usage"]["prompt_tokens"] == 5
    assert record["usage"]["completion_tokens"] == len("<user>hi<end>")
    assert record["tokens_per_second"]["decode"] > 0
    assert record["seed"] == 7
    told = sotol("run", "--server", url, "echo", "hi", "--verbose", "-n", "4")
    assert told.stdout == "<use\n"
    assert re.search(r"prompt 5 tokens.*, answer 4 tokens in .*, ended by length", told.stderr)


def test_options_arrive(url: str) -> None:
    """Each in the server's own words; what is not said stays the server's."""
    model = connect(ServerClient(url), "echo")
    with model.stream_chat([{"role": "user", "content": "hi"}], template=None, sampling=Sampling(stop=["hi"])) as one:
        assert one.result().text == "<user>"
    seen: list[dict[str, Any]] = []

    class Noting(ServerClient):
        def events(self, path: str, body: Any) -> Iterator[Any]:
            seen.append({"path": path, **body})
            yield {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}

    noting = connect(Noting(url), "echo")
    cases: list[tuple[Sampling, dict[str, Any]]] = [
        (Sampling(), {}),
        (Sampling(temperature=0, top_k=5, seed=3), {"temperature": 0, "top_k": 5, "seed": 3}),
        (Sampling(max_tokens=9, min_p=0), {"max_tokens": 9, "min_p": 0}),
        (Sampling(stop="a", ignore_eos=True), {"stop": ["a"], "ignore_eos": True}),
        (Sampling(logit_bias={5: float("-inf")}), {"logit_bias": {"5": -100.0}}),
        (Sampling(json=True), {"response_format": {"type": "json_object"}}),
        (Sampling(regex="a+"), {"guided_regex": "a+"}),
        (Sampling(grammar="root ::= 'a'"), {"grammar": "root ::= 'a'"}),
        (Sampling(schema='{"type": "object"}'),
         {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}}),
    ]  # fmt: skip
    for sampling, said in cases:
        noting.stream("abc", sampling=sampling).result()
        body = seen.pop()
        assert body.pop("path") == "/v1/completions"
        assert {key: value for key, value in body.items() if key not in ("model", "prompt", "stream_options")} == said
    noting.stream_chat([], template={"enable_thinking": False}, sampling=Sampling()).result()
    assert seen.pop()["chat_template_kwargs"] == {"enable_thinking": False}
    with pytest.raises(ValueError, match="the schema is no JSON"):
        noting.stream("abc", sampling=Sampling(schema="{"))


def test_calls(url: str) -> None:
    model = connect(ServerClient(url), "calls")
    client = ServerClient(url)
    look = {"name": "look", "parameters": {"type": "object", "properties": {}}}
    asked = [{"role": "user", "content": "hi"}]
    body = {"model": "calls", "messages": asked, "tools": [{"type": "function", "function": look}]}
    stream = model.stream("x", sampling=Sampling())
    stream._events = client.events("/v1/chat/completions", body)
    completion = stream.result()
    assert [(call.name, json.loads(call.arguments)) for call in completion.tool_calls] == [("look", {"at": 1})]
    assert (completion.text.strip(), completion.finish_reason) == ("Look:", "tool_calls")


def test_a_conversation(url: str) -> None:
    console = Console(file=StringIO(), width=120, color_system=None)
    client = ServerClient(url)

    def load(name: str, **loading: Any) -> Any:
        return connect(client, name, **loading)

    repl = Repl(load("echo"), console, Sampling(), load, verbose=True)
    for line in (
        "first",
        "/context",
        "/set parameter ctx 100",
        "/set parameter temperature 0",
        "/model other",
        "hi",
        "/debug",
    ):
        try:
            repl.take(line)
        except ValueError as error:
            repl.note(str(error))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("<user>first<end>", "2 messages of 25 tokens; the context holds 4096",
                 "ctx is for models that are loaded here", "temperature: 0", "other, context 512", "I am other.",
                 "answer 11 tokens"):  # fmt: skip
        assert part in shown.replace("\n", " ").replace("  ", " "), shown
    assert [turn["content"] for turn in repl.turns] == ["first", "<user>first<end>", "hi", "I am other."]


def test_ps_and_stop(sotol: Sotol, url: str, models: Models) -> None:
    sotol("run", "--server", url, "other", "hi")
    lines = [re.split(r"  +", line) for line in sotol("ps", "--server", url).stdout.splitlines()]
    assert lines[0] == ["model", "status", "memory", "idle", "until unloaded"]
    assert lines[1][:2] == ["echo, my-echo", "ready"]
    assert lines[4][:3] == ["other", "ready", "5 MB"]
    assert lines[4][4] == "for ever"
    stopped = sotol("stop", "other", "--server", url)
    assert stopped.stdout == "other is unloaded as soon as nobody uses it\n"
    until(lambda: models.find("other").status == "unloaded")
    [record] = [m for m in json.loads(sotol("ps", "--server", url, "--json").stdout)["models"] if m["id"] == "other"]
    assert (record["status"], record["memory"]) == ("unloaded", 0)
    result = sotol("stop", "nothing", "--server", url)
    assert result.exit_code == 1
    assert "The model 'nothing' does not exist: this server has 'echo'" in result.stderr


def test_a_key(sotol: Sotol, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(api_keys=("secret",))
    with scripted(echo) as llm, served(protected(create_app([Served("echo", llm)]), settings)) as url:
        refused = sotol("ps", "--server", url)
        assert refused.exit_code == 1
        assert "wants a key: give --api-key, or set SOTOL_API_KEY" in refused.stderr
        assert sotol("ps", "--server", url, "--api-key", "secret").exit_code == 0
        monkeypatch.setenv("SOTOL_API_KEY", "secret, other")
        assert sotol("run", "--server", url, "echo", "hi").stdout == "<user>hi<end>\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--server", "{}", "none", "hi"], 1, "has no model 'none': it has echo, thinks, calls, other"),
        (["--server", "{}", "echo", "hi", "--ctx", "100"], 2, "ctx is for models that are loaded here"),
        (["--server", "{}", "echo", "hi", "--precision", "f32"], 2, "precision is for models"),
        (["--server", "{}", "echo", "hi", "--json", "--logprobs", "2"], 2, "it does not go with --server"),
        (["--server", "{}", "echo", "x" * 5000], 1, "the prompt has "),
        (
            ["--server", "http://127.0.0.1:9", "hi", "x"],
            1,
            "no server answers at http://127.0.0.1:9: connection refused",
        ),
        (["--server", "ftp://x", "hi", "x"], 2, "--server is 'ftp://x'; it must be an address as http://"),
        (["--server", "http://[::1", "hi", "x"], 2, "it must be an address"),
        (["--server", "localhost:notaport", "hi", "x"], 2, "it must be an address"),
    ],
)
def test_what_goes_wrong(arguments: list[str], code: int, said: str, sotol: Sotol, url: str) -> None:
    result = sotol("run", *(argument.replace("{}", url) for argument in arguments))
    assert (result.exit_code, result.stdout.strip()) == (code, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


class _Strange(BaseHTTPRequestHandler):
    """A server that is none of ours. answers: by path, a status, headers and a body."""

    answers: dict[str, tuple[int, dict[str, str], bytes]]

    def do_GET(self) -> None:
        status, headers, body = self.answers[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def strange() -> Iterator[ServerClient]:
    """A client of such a server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Strange)
    _Strange.answers = {}
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield ServerClient(f"127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def data(*events: str) -> bytes:
    return "".join(f"data: {event}\n\n" for event in events).encode()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, data('{"choices": []}'), "ended the answer before it was complete"),
        (200, data("{"), "an event is no JSON object"),
        (200, data("[1]"), "an event is no JSON object"),
        (200, b'event: error\ndata: {"error": {"message": "out of luck"}}\n\n', "out of luck"),
        (200, b"", "ended the answer before it was complete"),
        (500, b'{"error": "in short"}', "in short"),
        (503, b"<html>", "HTTP 503 Service Unavailable"),
        (302, b"", "HTTP 302 Found"),
    ],
)
def test_strange_answers(status: int, body: bytes, said: str, strange: ServerClient) -> None:
    _Strange.answers = {"/x": (status, {"location": "http://127.0.0.1:9/"} if status == 302 else {}, body)}
    with pytest.raises(SotolError, match=said):
        list(strange.events("/x", {}))


@pytest.mark.parametrize(
    ("body", "said"), [(b"[]", "does not answer in JSON"), (b"x", "JSON"), (b"{}", "no list of models")]
)
def test_strange_lists(body: bytes, said: str, strange: ServerClient) -> None:
    _Strange.answers = {"/v1/models": (200, {}, body)}
    with pytest.raises(SotolError, match=said):
        strange.models()


def test_another_server(strange: ServerClient) -> None:
    """One that has OpenAI's fields alone: no figures, no states."""
    _Strange.answers = {
        "/v1/models": (200, {}, b'{"data": [{"id": "m"}]}'),
        "/v1/chat/completions": (
            200, {}, b": loading the model\n\n: more\n\n"
            + data('{"choices": [{"delta": {"content": "A", "reasoning": "why"}}]}',
                   '{"choices": [{"finish_reason": "length"}]}', "[DONE]"),
        ),
    }  # fmt: skip
    notes: list[str] = []
    model = connect(strange, None, notes.append)
    stream = model.stream(model.turn([{"role": "user", "content": "hi"}]), sampling=Sampling())
    assert [piece for delta in stream.deltas() for piece in delta.pieces if isinstance(piece, Content)] == [
        Content("A")
    ]
    assert stream.completion is not None
    assert (stream.completion.reasoning, stream.completion.finish_reason) == ("why", "length")
    assert (notes, model.context) == (["loading the model"], 2**31)


def test_leaving_ends_the_work(models: Models) -> None:
    with scripted("ab " * 400) as llm, served(create_app([Served("long", llm)])) as url:
        model = connect(ServerClient(url), "long")
        with model.stream_chat([{"role": "user", "content": "x"}], template=None, sampling=Sampling()) as stream:
            next(stream.deltas())
            assert llm.load().running == 1
        until(lambda: llm.load().running == 0)
    assert models.find("echo").status == "ready"


def test_a_terminal_sees_the_same(url: str, monkeypatch: pytest.MonkeyPatch, sotol: Sotol) -> None:
    """Thoughts are apart, as those of a model that is loaded here."""
    monkeypatch.setattr("sys.stdout", FakeTerminal())
    assert sotol("run", "--server", url, "thinks", "hi", "--no-color").stdout.startswith("<think>")
