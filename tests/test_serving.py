"""`bench.serving`: traces, what is made of their answers, and the ways to both engines. Times are made up."""

import json
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from math import inf
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from bench.child import Child, EngineError
from bench.engines.protocol import Setup
from bench.serving import __main__ as command
from bench.serving import engines, llama_client, openai_client, sotol_engine
from bench.serving.engines import Engine
from bench.serving.figures import Speeds, gaps, ideal_seconds, load_of, percentile, tail_ratio
from bench.serving.llama_client import arrivals
from bench.serving.play import Answer, answers_of, play
from bench.serving.play import record_of as record_of_answers
from bench.serving.posting import ServerError
from bench.serving.scenarios import SCENARIOS, Work
from bench.serving.trace import (
    NEW,
    PROMPT,
    SHARED,
    TAIL,
    Client,
    Request,
    beside_prompts,
    clients_of,
    poisson,
    record_of,
    with_prefix,
)
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tiny_model import TOKENS, tiny_model

from sotol.catalog import find_model
from sotol.tokenizers import Tokenizer

ORDINARY = range(1000, 1400)


# ---- traces


@given(st.integers(0, 2**32), st.integers(1, 40), st.one_of(st.just(inf), st.floats(0.01, 1000)))
def test_a_load_is_within_its_bounds_and_the_same_again(seed: int, count: int, rate: float) -> None:
    clients = poisson(ORDINARY, count, rate, seed)
    assert clients == poisson(ORDINARY, count, rate, seed)
    assert all(len(client.requests) == 1 and not client.background for client in clients)
    requests = [client.requests[0] for client in clients]
    assert len(requests) == count
    assert requests[0].at == 0
    assert all(a.at < b.at if rate < inf else b.at == 0 for a, b in pairwise(requests))
    assert {request.prompt[:SHARED] for request in requests} == {requests[0].prompt[:SHARED]}
    for request in requests:
        assert PROMPT[0] <= len(request.prompt) <= PROMPT[1]
        assert NEW[0] <= request.new <= NEW[1]
        assert set(request.prompt) <= set(ORDINARY)


def test_seeds_give_different_loads_of_the_rate() -> None:
    clients = poisson(ORDINARY, 2000, 4, seed=1)
    assert clients[:2] != poisson(ORDINARY, 2, 4, seed=2)
    own = {client.requests[0].prompt[SHARED:] for client in clients}
    assert len(own) == 2000
    assert 1999 / clients[-1].requests[0].at == pytest.approx(4, rel=0.1)
    # Both bounds are met.
    assert {len(client.requests[0].prompt) for client in clients} >= set(PROMPT)
    assert {client.requests[0].new for client in clients} >= set(NEW)


@pytest.mark.parametrize(("count", "rate", "said"), [(0, 4, "requests is 0"), (1, 0, "rate is 0"), (1, -1, "rate")])
def test_a_load_that_can_not_be(count: int, rate: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        poisson(ORDINARY, count, rate, 1)


def test_other_traces() -> None:
    [client] = with_prefix(ORDINARY, 50, 3, seed=1)
    first, second = client.requests
    assert len(first.prompt) == 50
    assert second.prompt[:50] == first.prompt
    assert len(second.prompt) == 50 + TAIL
    *running, long = beside_prompts(ORDINARY, 3, 8, (40, 41), 12, 1.5, seed=1)
    assert [(x.background, len(x.requests[0].prompt), x.requests[0].new) for x in running] == [(True, 8, 12)] * 3
    assert [(x.at, len(x.prompt), x.new) for x in long.requests] == [(1.5, 40, 1), (1.5, 41, 1)]
    assert not any(x.background for x in beside_prompts(ORDINARY, 3, 8, (), 12, 1.5, seed=1))


def test_traces_and_answers_go_through_json() -> None:
    clients = beside_prompts(ORDINARY, 2, 8, (40,), 12, 1.5, seed=1)
    assert clients_of(json.loads(json.dumps(record_of(clients)))) == clients
    answers = [[Answer(0.5, [(1.0, 1), (2.0, 3)])], [Answer(0.0, [], "no")], []]
    assert answers_of(json.loads(json.dumps(record_of_answers(answers)))) == answers


def test_ordinary_ids_have_text() -> None:
    model = find_model("smollm2")
    found = command.ordinary_ids(model)
    tokenizer = Tokenizer.from_gguf(model)
    assert all(tokenizer.token_bytes(token) for token in found)
    assert len(tokenizer) - 100 < len(found) < len(tokenizer)


# ---- playing


def counting(prompt: Sequence[int], new: int) -> Generator[int, None, None]:
    """An engine: tokens in pairs. A prompt that begins with 0 fails, with 1 ends early, with 2 never ends."""
    if prompt[0] == 0:
        raise OSError("no zeros")
    while prompt[0] == 2:
        yield 1
    sent = 1 if prompt[0] == 1 else 0
    while sent < new:
        yield min(2, new - sent)
        sent += 2


def test_each_client_has_its_answers_in_order() -> None:
    def client(*starts: int, background: bool = False) -> Client:
        return Client(tuple(Request(0.0, (start,), 5) for start in starts), background)

    several, bad, endless = play(counting, [client(7, 8), client(0, 1, 9), client(2, 7, background=True)])
    assert [[count for _, count in answer.arrivals] for answer in several] == [[2, 2, 1]] * 2
    times = [at for answer in several for at, _ in answer.arrivals]
    assert times == sorted(times)
    assert several[0].asked == 0
    assert several[0].arrivals[-1][0] <= several[1].asked <= several[1].arrivals[0][0]
    assert [answer.error for answer in several] == [""] * 2
    assert [answer.error for answer in bad] == ["OSError: no zeros", "it has 4 tokens instead of 5", ""]
    [stopped] = endless  # and its second request was not sent
    assert stopped.error == ""
    assert stopped.tokens > 0


# ---- figures


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_percentiles(values: list[float], percent: float) -> None:
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent), rel=1e-9, abs=1e-6)


def test_there_is_no_percentile_of_nothing() -> None:
    assert percentile([], 50) is None
    assert tail_ratio([], [1.0]) is None
    assert tail_ratio([1.0], []) is None
    assert tail_ratio([2.0, 6.0, 6.0], [1.0, 2.0, 9.0]) == 3


def test_tokens_that_come_together_share_their_gap() -> None:
    answer = Answer(0.0, [(1.0, 2), (1.5, 1), (4.5, 3)])
    assert gaps(answer) == [0.5, 1.0, 1.0, 1.0]
    assert gaps(answer, since=2) == [1.0] * 3
    assert gaps(answer, until=2) == [0.5]
    assert gaps(Answer(0.0, [(1.0, 1)])) == []


def test_a_load_by_hand() -> None:
    answers = [
        Answer(0.0, [(1.0, 1), (1.5, 1)]),
        Answer(2.0, [(5.0, 1), (5.5, 1), (7.0, 1)]),
        Answer(3.0, [(3.5, 1)], "it broke off"),
    ]
    load = load_of(answers)
    assert (load.requests, load.failures, load.tokens, load.seconds) == (3, 1, 5, 7.0)
    assert load.throughput == pytest.approx(5 / 7)
    assert load.first == pytest.approx({"p50": 2.0, "p90": 2.8, "p99": 2.98})
    assert load.between == pytest.approx({"p50": 0.5, "p99": 1.48})
    lost = load_of(answers[2:])
    assert (lost.failures, lost.tokens, lost.seconds, lost.throughput) == (1, 0, None, None)
    assert lost.first == {"p50": None, "p90": None, "p99": None}


def test_ideal_seconds_by_hand() -> None:
    clients = [Client((Request(0.0, (7,) * (SHARED + own), new),)) for own, new in ((100, 50), (200, 30))]
    speeds = Speeds(prefill=350.0, decode={16: 20.0, 32: 40.0, 64: 10.0})
    assert speeds.batch == 40
    assert ideal_seconds(clients, speeds) == (400 + 100 + 200) / 350 + (50 + 30) / 40


# ---- llama.cpp's server


def event(tokens: int, *, stop: bool = False) -> bytes:
    return f'data: {{"content":"x","stop":{json.dumps(stop)},"tokens_predicted":{tokens}}}\n'.encode()


def test_lines_of_the_server() -> None:
    lines = [event(1), b"\n", event(2), b": ping\n", event(5), event(5, stop=True), b"never read"]
    assert list(arrivals(lines)) == [1, 1, 3]
    assert list(arrivals([event(1), event(3, stop=True)])) == [1, 2]  # the last had no text of their own
    with pytest.raises(ServerError, match="broke off after 2 tokens"):
        list(arrivals([event(2)]))
    with pytest.raises(ServerError, match="too long"):
        list(arrivals([b'data: {"error":{"message":"the prompt is too long"}}\n']))
    with pytest.raises(ServerError, match="out of memory"):
        list(arrivals([b'error: {"message":"out of memory"}\n']))


class Server(BaseHTTPRequestHandler):
    """Answers a prompt of 7 with as many tokens as were asked for, and refuses others."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.path == "/completion" and asked["prompt"] == [7] and asked["ignore_eos"] and asked["stream"]
        self.send_response(200 if good else 400)
        self.end_headers()
        count = asked["n_predict"]
        lines = [event(i + 1, stop=i + 1 == count) + b"\n" for i in range(count)]
        self.wfile.writelines(lines if good else [b"no such prompt"])

    def log_message(self, *_: object) -> None:
        pass


def test_asking_a_server() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            assert list(llama_client.ask(address, (7,), 3)) == [1, 1, 1]
            with pytest.raises(ServerError, match="status 400: no such prompt"):
                list(llama_client.ask(address, (8,), 3))
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("name", "target"), [("llama", "bench-serving"), ("vllm", "bench-vllm")])
def test_a_server_that_is_not_installed(
    name: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "PEERS", tmp_path)
    with (
        pytest.raises(EngineError, match=f"not installed \\(make {target} "),
        engines.ENGINES[name](Setup("x", 1, 64, 1), {}),
    ):
        pass


# ---- sotol


def text_event(text: str) -> bytes:
    return f'data: {{"id":"c","choices":[{{"index":0,"text":"{text}","logprobs":null}}]}}\n'.encode()


def test_lines_of_sotols_server() -> None:
    usage = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":5}}\n'
    texts = [text_event("a"), b"\n", b": waiting\n", text_event("bc"), text_event("")]
    lines = [*texts, usage, b"data: [DONE]\n", b"never read"]
    assert list(openai_client.arrivals(lines)) == [1, 1, 3]
    with pytest.raises(ServerError, match="broke off after 2 tokens"):
        list(openai_client.arrivals(texts))
    with pytest.raises(ServerError, match="shutting down"):
        list(openai_client.arrivals([b"event: error\n", b'data: {"error":{"message":"it is shutting down"}}\n']))


def test_sotol_by_http(tmp_path: Path) -> None:
    with engines.ENGINES["sotol-http"](Setup(str(tiny_model(tmp_path)), 1, 64, 4), {"queue": 8}) as engine:
        clients = [Client((Request(0.0, (TOKENS.index(letter),) * 3, 20),)) for letter in "abcd"]
        answers = engine.play(clients)
        assert [(answer.tokens, answer.error) for [answer] in answers] == [(20, "")] * 4
        [[bad]] = engine.play([Client((Request(0.0, (1 << 20,), 2),))])
        assert "status 400" in bad.error
        assert "by HTTP" in engine.about


def test_sotol_counts_tokens_without_text(tmp_path: Path) -> None:
    with sotol_engine.load(str(tiny_model(tmp_path)), 1, 64, 4, {}) as llm:
        text = TOKENS.index("s")
        pieces = list(llm.stream((text, text), max_tokens=40, temperature=0, ignore_eos=True))
        assert len(pieces) < 40  # its model likes control tokens
        assert list(sotol_engine.ask(llm, (text, text), 40)) == [1] * 40
        with closing(sotol_engine.ask(llm, (text,), 60)) as stopped:
            assert next(stopped) == 1
        with pytest.raises(ValueError, match="the prompt has 64 tokens"):
            sotol_engine.ask(llm, (text,) * 64, 1)
    with pytest.raises(ValueError, match="no option 'speed'"):
        sotol_engine.load(str(tmp_path / "tiny.gguf"), 1, 64, 4, {"speed": 2})


def test_sotol_in_a_process_of_its_own(tmp_path: Path) -> None:
    model = str(tiny_model(tmp_path))
    clients = [Client((Request(0.0, (10, 11, 12 + i), 9), Request(0.0, (10,) * 64, 9))) for i in range(3)]
    with Child([sys.executable, "-m", "bench.serving.sotol_engine", model, "1", "64", "4"], {}) as child:
        assert child.loaded["about"].startswith("sotol ")
        answers = answers_of(child.ask({"clients": record_of(clients)})["answers"])
    assert [[answer.tokens for answer in client] for client in answers] == [[9, 0]] * 3
    for good, bad in answers:
        assert good.error == ""
        assert bad.error.startswith("ValueError: the prompt has 64 tokens")


# ---- a whole run


def invented(clients: Sequence[Client]) -> list[list[Answer]]:
    """An engine whose first token comes 1 ms after its prompt for each of its tokens, and others each 10 ms.

    A prompt costs 1 ms instead where it is the second of a client, and others' tokens take 50 ms beside one of 4096.
    """
    slow = any(len(request.prompt) == 4096 for client in clients for request in client.requests)
    answers: list[list[Answer]] = []
    for client in clients:
        found, now = list[Answer](), 0.0
        for i, request in enumerate(client.requests):
            asked = max(now, request.at)
            first = asked + (0.001 if i and not slow else 0.001 * len(request.prompt))
            step = 0.05 if slow else 0.01
            found.append(Answer(asked, [(first + k * step, 1) for k in range(request.new)]))
            now = found[-1].arrivals[-1][0]
        answers.append(found)
    return answers


@contextmanager
def fake(setup: Setup, options: Mapping[str, int]) -> Iterator[Engine]:
    assert setup.sequences == 16
    yield Engine(f"made up, {dict(options)}", invented)


@contextmanager
def broken(_setup: Setup, _options: Mapping[str, int]) -> Iterator[Engine]:
    raise EngineError("it does not start")
    yield


def test_figures_of_the_scenarios() -> None:
    work = Work(ORDINARY, 8, inf, 1)
    load: dict[str, Any] = SCENARIOS["load"].run(invented, work)
    assert (load["requests"], load["failures"], load["errors"]) == (8, 0, [])
    assert 0.42 <= load["first"]["p50"] <= 0.6
    assert load["between"] == pytest.approx({"p50": 0.01, "p99": 0.01})
    prefix = SCENARIOS["prefix"].run(invented, work)
    assert (prefix["first"], prefix["second"]) == pytest.approx((2.0, 0.001))
    assert prefix["ratio"] == pytest.approx(2000)
    long = SCENARIOS["long"].run(invented, work)
    assert long["ratio"] == pytest.approx(5)
    assert long["prompt"] == pytest.approx(4.096)
    assert long["crowded"]["gaps"] == pytest.approx(8 * 4 * 4.096 / 0.05, rel=0.01)
    assert long["errors"] == []


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_whole_run(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "ENGINES", {"sotol": fake, "llama": broken})
    monkeypatch.setattr(command, "speeds", lambda *_: Speeds(1000.0, {16: 100.0}))
    target = tmp_path / "numbers.json"
    options = ["--scenario", scenario, "--requests", "4", "--patience", "0", "--kv-memory", "9", "--json", str(target)]
    monkeypatch.setattr(sys, "argv", ["serving", *options])
    command.main()
    shown = capsys.readouterr().out
    record = json.loads(target.read_text())
    assert record["scenario"] == scenario
    assert record["left_out"] == {"llama": "it does not start"}
    assert record["engines"]["sotol"]["about"] == "made up, {'kv_memory': 9}"
    assert "left out: llama: it does not start" in shown
    row = next(line for line in shown.split("\n") if line.startswith("sotol "))
    expected = {"load": ["10.0 ms", " 0"], "prefix": ["2000.0 ms", "1.0 ms"], "long": ["50.0 ms", " 5.0 "]}
    assert all(text in row for text in expected[scenario])
    assert ("of that" in shown) == (scenario == "load")
    if scenario == "load":
        assert 0 < record["alone"]["ideal"] < 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engines", "sotol,llamas"], "--engines has llamas; there are sotol, sotol-http, llama"),
        (["--rate", "0"], "rate is 0.0; it must be above 0"),
        (["--requests", "0"], "requests is 0"),
        (["--threads", "0"], "--threads is at least 1"),
        (["--model", "no/such.gguf"], "no/such.gguf"),
    ],
)
def test_bad_options(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["serving", *options])
    with pytest.raises(SystemExit):
        command.main()
    assert said in capsys.readouterr().err
