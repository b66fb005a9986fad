"""A server's life, in a process of its own: loading, answering, signals. `sotol serve` is at the end.

Whatever the tests wait for comes, or the test fails after a minute.
"""

import http.client
import json
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import pytest
from tests.support.serving import until
from tests.support.tiny_model import tiny_model

from sotol.cli.server_client import ServerClient
from sotol.errors import SotolError

ROOT = Path(__file__).parents[2]
PEM = ROOT / "tests" / "data" / "localhost.pem"
PATIENCE = 60
# A server of one model. It loads when a line comes on standard input; if that is not empty, it fails with it. Its
# answer is a stream of a thousand events, of which it sends the first, and the others when another line comes.
SCRIPTED = """
import asyncio, json, sys, threading
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from tests.support.scripted import scripted
from sotol.errors import SotolError
from sotol.server.logs import begin_log
from sotol.server.models import Models, Offered
from sotol.server.serving import serve
from sotol.server.settings import Settings

def load(progress):
    progress("reading", 0, 2)
    if said := sys.stdin.readline().strip():
        raise SotolError(said)
    progress("reading", 2, 2)
    return scripted("Hello.")

def make_app(models, metrics):
    assert [model.name for model in models] == ["m"]

    async def stream(request):
        line = asyncio.get_running_loop().create_future()
        threading.Thread(target=read, args=(line,), daemon=True).start()

        async def events():
            for number in range(1000):
                yield f"data: {number}\\n\\n"
                await line

        return StreamingResponse(events(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/completions", stream), Route("/other", lambda _: PlainTextResponse(""))])

def read(future):
    line, loop = sys.stdin.readline(), future.get_loop()
    if line:
        loop.call_soon_threadsafe(lambda: future.done() or future.set_result(line))

settings = Settings(**{"port": 0, "log_format": "json", **json.loads(sys.argv[1])})
begin_log(settings)
try:
    models = lambda metrics: Models([Offered("m", load)], watch=metrics)
    code = serve(settings, models, make_app, lambda address: print(address, flush=True))
except SotolError as error:
    sys.exit(f"sotol: {error}")
sys.exit(code)
"""


class Process:
    """A server, and what it writes."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.out, self.err = _lines(self.process.stdout), _lines(self.process.stderr)
        self.log: list[str] = []

    def load(self, said: str = "") -> None:
        """Let the scripted server load."""
        assert self.process.stdin is not None
        self.process.stdin.write(said + "\n")
        self.process.stdin.flush()

    def address(self) -> str:
        """Where it is, which it says once it is ready."""
        line = self.out.get(timeout=PATIENCE)
        assert line is not None, self.rest()
        return line

    def logged(self, message: str) -> dict[str, Any]:
        """The next such line of the log, which is JSON."""
        while (line := self.err.get(timeout=PATIENCE)) is not None:
            self.log.append(line)
            entry: dict[str, Any] = json.loads(line)
            if entry["message"] == message:
                return entry
        raise AssertionError(self.log)

    def rest(self) -> list[str]:
        """All that it wrote to standard error, to its end."""
        while (line := self.err.get(timeout=PATIENCE)) is not None:
            self.log.append(line)
        return self.log

    def code(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE)


def _lines(stream: Any) -> "SimpleQueue[str | None]":
    """The lines of a pipe as they come, and None at its end."""
    queue: SimpleQueue[str | None] = SimpleQueue()

    def read() -> None:
        for line in stream:
            queue.put(line.rstrip("\n"))
        queue.put(None)

    threading.Thread(target=read, daemon=True).start()
    return queue


@contextmanager
def running(*command: str) -> Iterator[Process]:
    process = Process([sys.executable, *command])
    try:
        yield process
    finally:
        process.process.kill()
        process.process.wait()
        for pipe in (process.process.stdin, process.process.stdout, process.process.stderr):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()


def scripted_server(**settings: object) -> Any:
    return running("-c", SCRIPTED, json.dumps(settings))


def begun(address: str, path: str = "/v1/completions") -> tuple[http.client.HTTPConnection, Callable[[], str]]:
    """A stream whose first event has come, and how to read another line of it ("" at a proper end)."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=PATIENCE)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.readline() == b"data: 0\n"
    return connection, lambda: answer.readline().decode()


def test_it_is_alive_before_it_is_ready() -> None:
    with scripted_server() as server:
        address = server.logged("listening")["address"]
        with httpx.Client(base_url=address, timeout=PATIENCE) as client:
            assert client.get("/health").json() == {"status": "ok"}
            assert client.get("/ready").status_code == 503
            assert client.get("/v1/completions").json()["error"]["message"] == "Loading model"
            server.load()
            assert server.address() == address
            assert client.get("/ready").status_code == 200
            assert 'sotol_sequences_most{model="m"}' in client.get("/metrics").text
        entry = server.logged("ready")
        assert entry["address"] == address
        server.process.send_signal(signal.SIGTERM)
        assert server.code() == 0
        messages = [json.loads(line)["message"] for line in server.rest()]
        assert messages[-2:] == ["stopping", "stopped"]
        assert messages.count("loading") == 2
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)


def test_what_runs_comes_to_its_end() -> None:
    """No request comes in any more, so what lets the stream go on comes on standard input."""
    with scripted_server(shutdown_grace=3600) as server:
        server.load()
        address = server.address()
        connection, read = begun(address)
        server.process.send_signal(signal.SIGTERM)
        assert server.logged("stopping")["running"] == 1
        server.load()
        lines = [read() for _ in range(2 * 1000)]
        connection.close()
        assert lines[-3:] == ["data: 999\n", "\n", ""]
        assert server.code() == 0


def test_what_runs_too_long_is_ended() -> None:
    with scripted_server(shutdown_grace=0) as server:
        server.load()
        connection, read = begun(server.address())
        server.process.send_signal(signal.SIGTERM)
        assert (read(), read()) == ("\n", "event: error\n")
        assert "the server is shutting down" in json.loads(read().removeprefix("data: "))["error"]["message"]
        assert (read(), read()) == ("\n", "")  # http.client raises IncompleteRead where the end is not a proper one
        connection.close()
        assert server.code() == 0
        messages = [json.loads(line)["message"] for line in server.rest()]
        assert "the grace is over: answers end here" in messages
        assert not any("traceback" in json.loads(line) for line in server.log)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_exit_codes(number: signal.Signals, code: int) -> None:
    with scripted_server() as server:
        server.load()
        server.address()
        server.process.send_signal(number)
        assert server.code() == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_it_at_once(number: signal.Signals, code: int) -> None:
    with scripted_server(shutdown_grace=3600) as server:
        server.load()
        connection, _ = begun(server.address())
        server.process.send_signal(number)
        server.logged("stopping")
        server.process.send_signal(number)
        assert server.code() == code
        connection.close()


def test_a_signal_while_it_loads(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with scripted_server(uds=str(path)) as server:
        server.logged("loading")
        assert path.exists()
        server.process.send_signal(signal.SIGTERM)
        assert server.code() == 0
        assert not path.exists()


def test_a_model_that_does_not_load() -> None:
    with scripted_server() as server:
        server.load("the file is broken")
        assert server.code() == 1
        assert server.rest()[-1] == "sotol: the file is broken"
        assert server.out.get(timeout=PATIENCE) is None


def test_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with scripted_server(uds=str(path)) as server:
        server.load()
        assert server.address() == f"unix:{path}"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://any.name") as client:
            assert client.get("/ready").status_code == 200
        assert ServerClient(f"unix:{path}").ask("/ready") == {"status": "ok"}
        server.process.send_signal(signal.SIGTERM)
        assert server.code() == 0
        assert not path.exists()
        with pytest.raises(SotolError, match=f"no server answers at unix:{path}: no such file"):
            ServerClient(f"unix:{path}").ask("/ready")


def test_over_https() -> None:
    with scripted_server(ssl_certfile=str(PEM)) as server:
        server.load()
        address = server.address()
        assert address.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(PEM))
        with httpx.Client(base_url=address, verify=trusted, timeout=PATIENCE) as client:
            assert client.get("/ready").status_code == 200
        plain = httpx.URL(address).copy_with(scheme="http")
        with pytest.raises(httpx.TransportError):
            httpx.get(plain)
        server.process.send_signal(signal.SIGTERM)
        assert server.code() == 0


def test_behind_a_proxy() -> None:
    with scripted_server(trusted_proxies=["127.0.0.1"], root_path="/llm") as server:
        server.load()
        address = server.address().removesuffix("/llm")
        asked = {"x-forwarded-for": "203.0.113.9", "x-request-id": "mine"}
        assert httpx.get(address + "/other", headers=asked).status_code == 200
        entry = server.logged("request")
        assert (entry["client"], entry["request"], entry["path"]) == ("203.0.113.9", "mine", "/other")


# ---- the command


def command(*options: str) -> Any:
    return running("-m", "sotol", "serve", "smollm2", "--port", "0", "--ctx", "2048", "--log-format", "json", *options)


def asked_to_stream(address: str, tokens: int) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A stream of so many tokens, of which one has come."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=PATIENCE)
    body = {"model": "smollm2", "prompt": "Once", "max_tokens": tokens, "stream": True, "ignore_eos": True, "seed": 1}
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200
    while not answer.readline().startswith(b"data: "):
        pass
    return connection, answer


def test_the_command_serves() -> None:
    with command("--alias", "small,little", "--threads", "2") as server:
        address = server.address()
        with httpx.Client(base_url=address, timeout=PATIENCE) as client:
            [model] = client.get("/v1/models").json()["data"]
            assert (model["id"], model["aliases"], model["max_model_len"]) == ("small", ["little"], 2048)
            asked = {"model": "little", "prompt": "The sea is", "max_tokens": 4, "temperature": 0}
            answer = client.post("/v1/completions", json=asked)
            assert answer.json()["usage"]["completion_tokens"] == 4
            assert 'sotol_generated_tokens_total{model="small"} 4.0' in client.get("/metrics").text
        entries = [server.logged("request"), server.logged("request")]
        assert [entry["path"] for entry in entries] == ["/v1/models", "/v1/completions"]
        assert (entries[1]["model"], entries[1]["completion_tokens"]) == ("small", 4)
        port = address.rpartition(":")[2]
        again = subprocess.run(
            [sys.executable, "-m", "sotol", "serve", "--port", port], capture_output=True, text=True, timeout=PATIENCE
        )
        assert (again.returncode, again.stdout) == (1, "")
        assert again.stderr.startswith(f"sotol: port {port} of 127.0.0.1 is in use")
        server.process.send_signal(signal.SIGINT)
        assert server.code() == 130
        assert "The sea is" not in "".join(server.rest())


def test_the_command_serves_several(tmp_path: Path) -> None:
    """Of a folder and of a file: none is loaded before somebody asks; `sotol ps` tells, `sotol stop` unloads."""
    path, more = tiny_model(tmp_path), tmp_path / "models.toml"
    more.write_text(f'[[models]]\nname = "other"\npath = "{path.name}"\noptions = {{ ctx = 32 }}\nkeep_alive = "1h"\n')
    options = ("--port", "0", "--log-format", "json", "--keep-alive", "-1", "--max-memory", "1GB", "--threads", "1")
    with running("-m", "sotol", "serve", str(tmp_path), "--models", str(more), *options) as server:
        address = server.address()

        def sotol(*arguments: str) -> str:
            command = [sys.executable, "-m", "sotol", *arguments, "--server", address]
            return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout

        def states() -> list[tuple[str, str]]:
            return [(model["id"], model["status"]) for model in json.loads(sotol("ps", "--json"))["models"]]

        assert states() == [("tiny", "unloaded"), ("other", "unloaded")]
        assert sotol("run", "other", "abc", "-n", "1")
        assert states() == [("tiny", "unloaded"), ("other", "ready")]
        sotol("stop", "other")
        assert server.logged("unloaded")["reason"] == "asked"
        assert states() == [("tiny", "unloaded"), ("other", "unloaded")]
        server.process.send_signal(signal.SIGTERM)
        assert server.code() == 0


def test_the_command_lets_a_stream_end() -> None:
    with command("--shutdown-grace", "3600") as server:
        connection, answer = asked_to_stream(server.address(), 200)
        server.process.send_signal(signal.SIGTERM)
        lines = answer.read().decode().split("\n\n")
        connection.close()
        assert lines[-2:] == ["data: [DONE]", ""]
        assert server.code() == 0


def test_the_command_ends_a_stream() -> None:
    with command("--shutdown-grace", "0") as server:
        connection, answer = asked_to_stream(server.address(), 2000)
        server.process.send_signal(signal.SIGTERM)
        lines = answer.read().decode().split("\n\n")
        connection.close()
        assert (
            "the server is shutting down"
            in json.loads(lines[-2].strip().removeprefix("event: error\ndata: "))["error"]["message"]
        )
        assert server.code() == 0


def test_who_leaves_a_stream_of_the_command_ends_its_work() -> None:
    with command() as server:
        address = server.address()
        connection, answer = asked_to_stream(address, 2000)
        answer.close()
        connection.close()
        entry = server.logged("request")
        assert (entry["path"], entry["left"], "model" in entry) == ("/v1/completions", True, False)
        with httpx.Client(base_url=address, timeout=PATIENCE) as client:
            until(lambda: 'sotol_sequences_running{model="smollm2"} 0.0' in client.get("/metrics").text)
            assert "sotol_answers_total{" not in client.get("/metrics").text  # it has not come to its end
        server.process.send_signal(signal.SIGTERM)
        assert server.code() == 0
