"""A client that goes stops its work: within a step, whatever it asked for and however far that was."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from tests.support.scripted import scripted
from tests.support.serving import served, until

from sotol import LLM
from sotol.server import Served, answering, create_app

MESSAGES = [{"role": "user", "content": "hi"}]
ASKED: dict[str, tuple[dict[str, Any], int]] = {  # a request, and how many answers it wants
    "/v1/chat/completions": ({"messages": MESSAGES, "n": 3}, 3),
    "/v1/completions": ({"prompt": ["a", "b"]}, 2),
    "/v1/responses": ({"input": "hi"}, 1),
    "/v1/messages": ({"model": "model", "messages": MESSAGES, "max_tokens": 4000}, 1),
    "/api/chat": ({"model": "model", "messages": MESSAGES}, 1),
    "/api/generate": ({"model": "model", "prompt": "hi"}, 1),
}


class Gate:
    """Holds up a model's steps, and counts the requests that are cancelled meanwhile."""

    def __init__(self, llm: LLM) -> None:
        self._may, self._free = threading.Semaphore(0), False
        self._waiting = threading.Event()
        runner: Any = llm._loaded.runner
        runner.before, self.runner = self._before, runner
        self.cancelled = list[object]()
        engine: Any = llm._engine
        cancel = engine.cancel

        def counted(request: object) -> None:
            cancel(request)
            self.cancelled.append(request)

        engine.cancel = counted

    def _before(self, _: object) -> None:
        if not self._free:
            self._waiting.set()
            self._may.acquire()

    def reached(self) -> None:
        """Wait until a step begins."""
        assert self._waiting.wait(60)

    def step(self) -> None:
        """Let the step run, and wait for the next."""
        self._waiting.clear()
        self._may.release()
        self.reached()

    def open(self) -> None:
        """Let all steps run."""
        self._free = True
        self._may.release()


@contextmanager
def gated() -> Iterator[tuple[str, LLM, Gate]]:
    """A server whose model takes no step unless it is let."""
    with scripted("ab " * 1000) as llm:
        gate = Gate(llm)
        try:
            with served(create_app([Served("model", llm)])) as url:
                yield url, llm, gate
        finally:
            gate.open()


def ask(url: str, path: str, body: dict[str, Any]) -> socket.socket:
    """A connection on which a request was sent."""
    host, port = url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(data)) + data)
    return connection


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", ASKED)
def test_the_work_stops(path: str, stream: bool) -> None:
    body, answers = ASKED[path]
    with gated() as (url, llm, gate), ExitStack() as stack:
        connection = stack.enter_context(ask(url, path, {**body, "stream": stream}))
        gate.reached()
        while llm.load().running < answers:  # several prompts come one after the other
            gate.step()
        gate.step()
        steps = gate.runner.steps
        connection.close()
        until(lambda: len(gate.cancelled) == answers)
        gate.open()
        until(lambda: llm.load().running == llm.load().waiting == 0)
        assert gate.runner.steps == steps  # the one that was under way was the last


def test_a_client_that_goes_before_its_turn() -> None:
    """While the prompt waits: it is never computed."""
    with gated() as (url, llm, gate), ExitStack() as stack:
        path, (body, answers) = next(iter(ASKED.items()))
        first = stack.enter_context(ask(url, "/v1/completions", {"prompt": "a", "max_tokens": 2}))
        gate.reached()
        second = stack.enter_context(ask(url, path, body))
        until(lambda: llm._engine._inbox.submissions > 0)
        second.close()
        until(lambda: len(gate.cancelled) == answers)
        gate.open()
        seen = b""
        while b'"length"' not in seen:
            data = first.recv(4096)
            assert data
            seen += data
        until(lambda: llm.load().running == llm.load().waiting == 0)
        assert gate.runner.steps == 2


def test_a_stream_says_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """While its prompt waits."""
    monkeypatch.setattr(answering, "BEAT_SECONDS", 0.01)
    expected = {"/v1/chat/completions": b": waiting\n\n", "/v1/messages": b'event: ping\ndata: {"type":"ping"}\n\n'}
    for path, beat in expected.items():
        with gated() as (url, _, gate), ExitStack() as stack:
            connection = stack.enter_context(ask(url, path, {**ASKED[path][0], "stream": True}))
            gate.reached()
            seen = b""
            while seen.count(beat) < 4:
                data = connection.recv(4096)
                assert data
                seen += data
