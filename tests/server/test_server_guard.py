"""The guards, each around a small application: who may ask, what, how much, and how answers end."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.support.asgi import Endless, asked, echo, heard

from sotol.server.guard import Protected, protected
from sotol.server.guard.hosts import host_pattern, origin_pattern
from sotol.server.guard.rates import Bucket, Rates
from sotol.server.guard.visit import visit_of
from sotol.server.metrics import Metrics
from sotol.server.settings import Settings

PATHS = ["/v1/chat/completions", "/v1/messages", "/api/chat"]


def guarded(app: ASGIApp = echo, **options: Any) -> Protected:
    return protected(app, Settings(**options))


def message_of(response: httpx.Response, path: str) -> str:
    """What an error says, in the shape of the path's dialect."""
    body = response.json()
    if path.startswith("/api/"):
        assert set(body) == {"error"}
        return str(body["error"])
    if path.startswith("/v1/messages"):
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}
    else:
        assert set(body["error"]) == {"type", "message", "param", "code"}
    return str(body["error"]["message"])


# ---- keys


@pytest.mark.parametrize("path", PATHS)
def test_without_a_key_nobody_comes_in(path: str) -> None:
    app = guarded(api_keys=("first", "second"))
    for headers in ({}, {"authorization": "Bearer third"}, {"x-api-key": "firs"}, {"authorization": "Basic first"}):
        refused = asked(app, path, "POST", headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert "key" in message_of(refused, path)
    for headers in (
        {"authorization": "Bearer first"},
        {"authorization": "bearer second"},
        {"x-api-key": "second"},
        {"authorization": "Bearer wrong", "x-api-key": "first"},
    ):
        assert asked(app, path, "POST", headers=headers).status_code == 200


@pytest.mark.parametrize(("path", "open_metrics", "code"), [
    ("/health", False, 200), ("/ready", False, 200), ("/metrics", False, 401), ("/metrics", True, 200),
    ("/health/x", False, 401), ("/v1/models", True, 401),
])  # fmt: skip
def test_what_needs_no_key(path: str, open_metrics: bool, code: int) -> None:
    app = guarded(api_keys=("first",), open_metrics=open_metrics)
    assert asked(app, path).status_code == code


def test_keys_are_known_by_their_number() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(visit_of(scope).client)
        await echo(scope, receive, send)

    asked(guarded(app, api_keys=("first", "second")), headers={"x-api-key": "second"})
    asked(guarded(app), client="10.1.2.3")
    assert seen == ["key 2", "10.1.2.3"]


# ---- hosts and origins


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200), ("localhost:8080", 200), ("LOCALHOST:1", 200), ("localhost.", 200), ("app.localhost", 200),
        ("127.0.0.1:8080", 200), ("[::1]:8080", 200), ("::1", 200), ("192.168.0.7", 200), ("10.0.0.1:99", 200),
        ("evil.example", 403), ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403), ("", 403),
        ("127.0.0.1@evil.example", 403), ("localhost:8080.evil.example", 403), ("127.0.0.1:evil", 403),
    ],
)  # fmt: skip
def test_names_that_mean_this_machine(host: str, code: int) -> None:
    assert asked(guarded(), headers={"host": host}).status_code == code


def test_other_names_must_be_allowed() -> None:
    app = guarded(allowed_hosts=("llm.example.org", "*.example.net", "exact.example:9000"))
    for host, code in {
        "llm.example.org": 200, "LLM.example.org:8080": 200, "x.example.net": 200, "a.b.example.net:1": 200,
        "exact.example:9000": 200, "exact.example:9001": 403, "example.net": 403, "evilexample.net": 403,
        "llmxexample.org": 403, "llm.example.org.evil": 403,
    }.items():  # fmt: skip
        assert asked(app, headers={"host": host}).status_code == code, host
    assert asked(guarded(allowed_hosts=("*",)), headers={"host": "whatever"}).status_code == 200
    assert asked(guarded(uds="/run/x"), headers={"host": "whatever"}).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_pages_of_others_may_not_send_anything(path: str) -> None:
    """Not even what a browser sends without asking, as it does for text/plain."""
    headers = {"origin": "https://evil.example", "content-type": "text/plain"}
    refused = asked(guarded(), path, "POST", headers=headers, content=b"{}")
    assert refused.status_code == 403
    assert "https://evil.example" in message_of(refused, path)
    assert "access-control-allow-origin" not in refused.headers
    assert asked(guarded(), headers={"origin": "null"}).status_code == 403
    assert asked(guarded(), headers={"origin": "http://localhost:3000"}).status_code == 403
    assert asked(guarded(), headers={"origin": "http://localhost:8080"}).status_code == 200  # its own


def test_pages_that_may() -> None:
    app = guarded(cors_origins=("https://good.example", "http://localhost:*"), api_keys=("first",))
    asking = {"origin": "https://good.example", "access-control-request-method": "POST",
              "access-control-request-headers": "authorization, content-type"}  # fmt: skip
    allowed = asked(app, "/v1/models", "OPTIONS", headers=asking)  # browsers send no key with it
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://good.example"
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    refused = asked(app, headers={"origin": "http://localhost:5173"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "http://localhost:5173"  # so that it can read why
    assert "x-request-id" in refused.headers["access-control-expose-headers"]
    for origin in ("https://good.example.evil", "http://localhost.evil:80", "http://good.example", "null"):
        assert asked(app, headers={"origin": origin}).status_code == 403, origin
        wanted = asked(app, "/v1/models", "OPTIONS", headers={**asking, "origin": origin})
        assert wanted.status_code == 403, origin
    assert asked(guarded(cors_origins=("*",)), headers={"origin": "null"}).status_code == 200


def test_patterns_match_nothing_of_nothing() -> None:
    for pattern in (host_pattern([]), origin_pattern([])):
        assert not pattern.fullmatch("")
        assert not pattern.fullmatch("localhost")


@given(st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True), st.text(max_size=20))
def test_a_host_is_nothing_but_itself(name: str, text: str) -> None:
    assert host_pattern([name]).fullmatch(f"{name}:80")
    if text.casefold() not in (name, f"{name}.") and ":" not in text:
        assert not host_pattern([name]).fullmatch(text)


def test_a_request_has_one_host() -> None:
    for headers in ([], [("host", "localhost"), ("host", "localhost")]):
        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"",
                 "headers": [(name.encode(), value.encode()) for name, value in headers]}  # fmt: skip
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        asyncio.run(guarded()(scope, _nothing, send))
        assert sent[0]["status"] == 400


async def _nothing() -> Any:
    return {"type": "http.disconnect"}


# ---- heads and bodies


@pytest.mark.parametrize("path", PATHS)
def test_long_heads(path: str) -> None:
    app = guarded(header_bytes=2000, header_count=20)
    cases: list[dict[str, Any]] = [
        {"headers": {"x": "y" * 2000}},
        {"headers": {f"x-{i}": "y" for i in range(20)}},
        {"params": {"x": "y" * 2000}},
    ]
    for options in cases:
        refused = asked(app, path, "POST", **options)
        assert refused.status_code == 431
        assert "the server takes" in message_of(refused, path)
        assert refused.headers["connection"] == "close"
    assert asked(app, path, "POST", headers={"x": "y" * 1000}).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_long_bodies(path: str) -> None:
    app = guarded(body_bytes=1000)
    assert asked(app, path, "POST", content=b"x" * 1000).content == b"x" * 1000

    async def pieces(count: int) -> Any:  # without a length
        for _ in range(count):
            yield b"x" * 100

    assert asked(app, path, "POST", content=pieces(10)).content == b"x" * 1000
    for content in (b"x" * 1001, pieces(11), pieces(10_000)):
        refused = asked(app, path, "POST", content=content)
        assert refused.status_code == 413
        assert message_of(refused, path) == "the body has more than 1000 bytes"
    lying = asked(app, path, "POST", content=b"x" * 5000, headers={"content-length": "5"})
    assert lying.status_code == 413
    huge = asked(app, path, "POST", content=b"x", headers={"content-length": "9" * 400, "expect": "100-continue"})
    assert huge.status_code == 413


def test_all_bodies_together() -> None:
    inside = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/wait":
            waiting.append(scope)
            if len(waiting) == 8:
                full.set()
            await inside.wait()
        await echo(scope, receive, send)

    waiting: list[Scope] = []
    full = asyncio.Event()

    async def play() -> None:
        all_of_it = guarded(app, body_bytes=1000)
        tasks = [asyncio.create_task(heard(all_of_it, "/wait", "POST", content=b"x" * 1000)) for _ in range(8)]
        await full.wait()
        refused = await heard(all_of_it, "/v1/completions", "POST", content=b"xx")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        inside.set()
        assert [(await task).status_code for task in tasks] == [200] * 8
        assert (await heard(all_of_it, "/", "POST", content=b"x" * 1000)).status_code == 200

    asyncio.run(play())


@pytest.mark.parametrize("path", PATHS)
def test_slow_bodies(path: str) -> None:
    async def slow() -> Any:
        yield b"x"
        await asyncio.Event().wait()

    refused = asked(guarded(read_timeout=0.01), path, "POST", content=slow())
    assert refused.status_code == 408
    assert "within 0.01 s" in message_of(refused, path)


def test_prompts_are_logged_only_if_wanted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asked(
        guarded(),
        "/v1/completions?token=hidden",
        "POST",
        content=b'{"prompt": "hidden"}',
        headers={"x-api-key": "hidden"},
    )
    assert "hidden" not in "".join(str(vars(record)) for record in caplog.records if record.name.startswith("sotol"))
    asked(guarded(log_prompts=True), "/v1/completions", "POST", content=b'{"prompt": "shown"}')
    [shown] = [vars(record)["fields"] for record in caplog.records if record.name == "sotol.prompts"]
    assert shown["body"] == '{"prompt": "shown"}'
    assert shown["request"].startswith("req_")


# ---- rates


@given(st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50)), max_size=30))
def test_a_bucket_gives_no_more_than_its_rate(per_minute: int, asked_for: list[tuple[float, float]]) -> None:
    bucket, now, given_out = Bucket(per_minute, 0.0), 0.0, 0.0
    for later, wanted in asked_for:
        now += later
        if bucket.wait(wanted, now) == 0:
            bucket.take(wanted, now)
            given_out += wanted
        assert given_out <= per_minute + now * per_minute / 60 + 1e-6


def test_a_bucket_by_hand() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(60, 0.0)
    assert bucket.wait(1, 0.0) == 1
    assert bucket.wait(1, 0.25) == 0.75
    assert bucket.wait(1, 1.0) == 0
    bucket.take(100, 1.0)  # an answer that cost more than there was
    assert bucket.wait(1, 1.0) == 100
    assert bucket.wait(60, 1000.0) == 0
    assert bucket.wait(61, 1000.0) == 1


@pytest.mark.parametrize("path", PATHS)
def test_too_many_requests(path: str) -> None:
    now = 0.0
    limited = Rates(echo, Settings(requests_per_minute=2), lambda: now)
    assert [asked(limited, path).status_code for _ in range(3)] == [200, 200, 429]
    refused = asked(limited, path)
    assert refused.headers["retry-after"] == "30"
    assert "more than 2 requests a minute" in message_of(refused, path)
    assert asked(limited, "/health").status_code == 200
    assert asked(limited, path, client="10.0.0.9").status_code == 200
    now = 30.0
    assert [asked(limited, path).status_code for _ in range(2)] == [200, 429]


def test_too_many_tokens() -> None:
    now = 0.0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        visit_of(scope).completion_tokens = 90
        await echo(scope, receive, send)

    limited = Rates(app, Settings(tokens_per_minute=60), lambda: now)
    assert [asked(limited).status_code for _ in range(2)] == [200, 429]
    assert asked(limited).headers["retry-after"] == "31"  # 30 tokens are owed, and one must be there
    now = 31.0
    assert asked(limited).status_code == 200


def test_who_leaves_a_stream_pays_for_what_came() -> None:
    now = 0.0

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(60):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise asyncio.CancelledError

    async def play() -> None:
        limited = Rates(app, Settings(tokens_per_minute=60), lambda: now)
        with pytest.raises(asyncio.CancelledError):
            await heard(limited)
        assert (await heard(limited)).status_code == 429

    asyncio.run(play())


def test_forgotten_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sotol.server.guard.rates.MOST", 2)
    limited = Rates(echo, Settings(requests_per_minute=1), lambda: 0.0)
    codes = [
        asked(limited, client=client).status_code for client in ("1.1.1.1", "2.2.2.2", "1.1.1.1", "3.3.3.3", "2.2.2.2")
    ]
    assert codes == [200, 200, 429, 200, 200]


# ---- endings


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_that_does_not_begin(path: str) -> None:
    app = Endless()
    late = asked(guarded(app, request_timeout=0.01), path)
    assert late.status_code == 504
    assert "within 0.01 s" in message_of(late, path)
    assert app.cancelled


@pytest.mark.parametrize(("path", "kind", "ending"), [
    ("/v1/completions", "text/event-stream; charset=utf-8", 'event: error\ndata: {"error": {"message": "the answer'),
    ("/v1/responses", "text/event-stream", 'event: error\ndata: {"type": "error", "code": "timeout"'),
    ("/v1/messages", "text/event-stream", 'event: error\ndata: {"type": "error", "error": {"type": "timeout_error"'),
    ("/api/chat", "application/x-ndjson", '{"error": "the answer took'),
])  # fmt: skip
def test_a_stream_that_takes_too_long_says_so(path: str, kind: str, ending: str) -> None:
    app = Endless(kind)
    late = asked(guarded(app, stream_timeout=0.01), path)
    assert late.status_code == 200
    begin, _, end = late.text.partition("\n\n")
    assert begin == "data: 1"
    assert end.startswith(ending)
    assert end.endswith("\n")
    json.loads(end.strip().removeprefix("event: error\n").removeprefix("data: "))
    assert app.cancelled


@pytest.mark.parametrize("kind", ["text/event-stream", None])
def test_the_end_of_all(kind: str | None) -> None:
    async def play() -> None:
        app = Endless(kind)
        behind = protected(app, Settings())
        answer = asyncio.create_task(heard(behind, "/v1/completions"))
        await app.begun.wait()
        assert behind.endings.running == 1
        assert behind.endings.end_all() == 1
        behind.endings.end_all()  # again is no more
        ended = await answer
        assert "the server is shutting down" in ended.text
        assert ended.status_code == (503 if kind is None else 200)
        assert (ended.headers.get("retry-after"), ended.headers.get("connection")) == (
            ("5", "close") if kind is None else (None, None)
        )
        assert behind.endings.running == 0

    asyncio.run(play())


@pytest.mark.parametrize("path", PATHS)
def test_bugs_are_logged_and_told_as_such(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise TimeoutError("the secret of the bug")  # that it is one of time makes it no limit

    broken = asked(guarded(app), path)
    assert broken.status_code == 500
    assert "secret" not in message_of(broken, path)
    [record] = [record for record in caplog.records if record.name == "sotol.server"]
    assert "the secret of the bug" in str(record.exc_info)
    assert vars(record)["fields"]["request"] == broken.headers["x-request-id"]


# ---- ids, log and metrics


@pytest.mark.parametrize(("given_id", "kept"), [("mine-1.2_3", True), ("a b", False), ("x" * 129, False), ("", False)])
def test_request_ids(given_id: str, kept: bool) -> None:
    answer = asked(guarded(), headers={"x-request-id": given_id})
    assert (answer.headers["x-request-id"] == given_id) == kept
    assert answer.headers["x-request-id"] == answer.headers["request-id"]
    if not kept:
        assert answer.headers["x-request-id"].startswith("req_")


def test_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sotol.access")
    asked(guarded(api_keys=("first",)), "/v1/models?q=1", headers={"x-api-key": "first"})
    asked(guarded(), "/health")
    request, health = (record for record in caplog.records if record.name == "sotol.access")
    assert (request.levelname, health.levelname) == ("INFO", "DEBUG")
    fields = vars(request)["fields"]
    assert fields.keys() == {"request", "client", "method", "path", "status", "seconds", "bytes", "first_byte"}
    assert (fields["client"], fields["path"], fields["status"]) == ("key 1", "/v1/models", 200)


def test_a_client_that_leaves_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sotol.access")

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    metrics = Metrics()
    scope = {"type": "http", "method": "GET", "path": "/v1/models", "raw_path": b"", "query_string": b"",
             "headers": [(b"host", b"localhost")]}  # fmt: skip
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return messages.pop()

    async def send(message: Any) -> None:
        raise AssertionError(message)

    asyncio.run(protected(app, Settings(), metrics)(scope, receive, send))
    fields = vars(caplog.records[-1])["fields"]
    assert (fields["status"], fields["left"]) == (499, True)
    assert 'sotol_http_requests_total{method="GET",route="other",status="499"} 1.0' in metrics.text().decode()


def test_web_sockets_are_refused() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guarded()({"type": "websocket", "path": "/"}, _nothing, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_the_root_path() -> None:
    """A proxy strips it from requests, and the server puts it before them again, for links."""
    app = guarded(api_keys=("first",))

    async def rooted(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/llm", "path": "/llm" + scope["path"]}, receive, send)

    assert asked(rooted, "/health").status_code == 200
    assert message_of(asked(rooted, "/api/chat"), "/api/chat")
    assert message_of(asked(rooted, "/v1/messages"), "/v1/messages")
