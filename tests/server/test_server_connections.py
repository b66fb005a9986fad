"""Connections as bad clients use them: raw sockets to a real server. Each time limit that is met here is never kept."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.support.asgi import echo
from tests.support.serving import served

from sotol.server.connections import PIPELINED, SPARE, protocol
from sotol.server.guard import protected
from sotol.server.settings import Settings

PATIENCE = 60  # seconds after which a client takes a server for hung


@contextmanager
def serving(app: ASGIApp = echo, **options: Any) -> Iterator[int]:
    """The port of a server with these settings."""
    settings = Settings(**options)
    own = {
        "http": protocol(settings),
        "lifespan": "off",
        "log_config": None,
        "timeout_keep_alive": settings.idle_timeout,
    }
    with served(protected(app, settings), **own) as address:
        yield int(address.rpartition(":")[2])


def connected(port: int) -> Any:
    return closing(socket.create_connection(("127.0.0.1", port), PATIENCE))


def answer(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection. A broken one counts as ended."""
    found = b""
    try:
        while piece := connection.recv(1 << 16):
            found += piece
    except ConnectionError:
        pass
    return found


def head(*lines: str, method: str = "POST") -> bytes:
    return "\r\n".join((f"{method} /v1/completions HTTP/1.1", "Host: localhost", *lines, "", "")).encode()


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /v1/comp", b"POST / HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n", b"POST / HTTP/1.1\r\nHost: local"],
)
def test_a_head_that_does_not_come(sent: bytes) -> None:
    with serving(read_timeout=0.05) as port, connected(port) as connection:
        connection.sendall(sent)
        got = answer(connection)
    assert got.startswith(b"HTTP/1.1 408 ")
    assert b"did not come within 0.05 s" in got


def test_a_second_head_that_does_not_come() -> None:
    with serving(read_timeout=0.05, idle_timeout=3600) as port, connected(port) as connection:
        connection.sendall(head("Content-Length: 2") + b"hi" + b"POST / HT")
        got = answer(connection)
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in got


def test_an_idle_connection_ends() -> None:
    with serving(idle_timeout=0.05) as port, connected(port) as connection:
        connection.sendall(head("Content-Length: 2") + b"hi")
        assert answer(connection).endswith(b"\r\n\r\nhi")


@pytest.mark.parametrize("piece", [b"X-Flood: more\r\n", b"X" * 1000, b": y" * 300])
def test_a_head_that_never_ends(piece: bytes) -> None:
    with serving(header_bytes=4096) as port, connected(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Begin: ")
        got = _flooded(connection, piece)
    assert got == b"" or got.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


def test_an_address_that_never_ends() -> None:
    with serving(header_bytes=4096) as port, connected(port) as connection:
        connection.sendall(b"GET /")
        got = _flooded(connection, b"x" * 1000)
    assert got == b"" or got.startswith(b"HTTP/1.1 431 ")


def _flooded(connection: socket.socket, piece: bytes) -> bytes:
    """Send the same for ever; what the server says when it has had enough. TimeoutError if it never has."""
    try:
        for _ in range(1 << 20):
            connection.sendall(piece)
    except ConnectionError:
        pass
    else:
        raise AssertionError("the server took all of it")
    return answer(connection)


def test_many_headers_at_once() -> None:
    with serving() as port, connected(port) as connection:
        connection.sendall(head(*(f"X-{i}: y" for i in range(200))))
        assert answer(connection).startswith(b"HTTP/1.1 431 ")


def test_a_body_that_does_not_come() -> None:
    for lines, body in ((("Content-Length: 100",), b"x" * 10), (("Transfer-Encoding: chunked",), b"5\r\nab")):
        with serving(read_timeout=0.05) as port, connected(port) as connection:
            connection.sendall(head(*lines) + body)
            got = answer(connection)
        assert got.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "sent",
    [
        head("Transfer-Encoding: chunked") + b"zz\r\nab\r\n",
        head("Transfer-Encoding: chunked") + b"2\r\nabcdef\r\n0\r\n\r\n",
        head("Transfer-Encoding: chunked", "Content-Length: 3") + b"abc",
        head("Content-Length: 3", "Content-Length: 4") + b"abc",
        head("Content-Length: -1"),
        head("Content-Length: 3x") + b"abc",
        head("Transfer-Encoding: gzip, chunked, x") + b"abc",
        head(" folded: header"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # HTTPS, to a server of HTTP
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 100,
        b"\r\n" * 3 + b"what is this\r\n\r\n",
    ],
)
def test_what_is_no_request(sent: bytes) -> None:
    with serving(read_timeout=0.5) as port:
        with connected(port) as connection:
            connection.sendall(sent)
            got = answer(connection)
        assert got.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 408 ")), got
        with connected(port) as connection:  # and others are served
            connection.sendall(head("Content-Length: 2", "Connection: close") + b"hi")
            assert answer(connection).endswith(b"hi")


def test_chunks_beyond_the_limit() -> None:
    with serving(body_bytes=1000) as port, connected(port) as connection:
        connection.sendall(head("Transfer-Encoding: chunked") + b"1f4\r\n" + b"x" * 500 + b"\r\n1F5\r\n" + b"x" * 501)
        connection.sendall(b"\r\n0\r\n\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 413 ")
    with serving(body_bytes=1000) as port, connected(port) as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        got = _flooded(connection, b"1f4\r\n" + b"x" * 500 + b"\r\n")
    assert got == b"" or got.startswith(b"HTTP/1.1 413 ")


def test_a_body_is_not_asked_for_in_vain() -> None:
    with serving(body_bytes=1000) as port, connected(port) as connection:
        connection.sendall(head("Content-Length: 1001", "Expect: 100-continue"))
        assert answer(connection).startswith(b"HTTP/1.1 413 ")


def test_requests_one_behind_the_other() -> None:
    count = PIPELINED // 2
    with serving() as port, connected(port) as connection:
        sent = [head("Content-Length: 3") + b"%03d" % i for i in range(count)]
        connection.sendall(b"".join(sent) + head("Connection: close", "Content-Length: 3") + b"end")
        got = answer(connection)
    ends = [part.partition(b"\r\n\r\n")[2] for part in got.split(b"HTTP/1.1 200 OK")[1:]]
    assert ends == [b"%03d" % i for i in range(count)] + [b"end"]


OFFER = ("Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB")


@pytest.mark.parametrize(
    "sent",
    [
        [head("Connection: Upgrade, HTTP2-Settings", *OFFER, "Content-Length: 5"), b"he", b"llo"],
        [head("Connection: Upgrade", *OFFER, "Content-Length: 5") + b"hello"],
        [head("Connection: Upgrade", *OFFER, "Transfer-Encoding: chunked") + b"5\r\nhe", b"llo\r\n0\r\n\r\n"],
        [head("Connection: upgrade", "Upgrade: websocket", "Content-Length: 5") + b"hello"],
    ],
)
def test_an_offer_of_another_protocol_is_not_taken(sent: list[bytes]) -> None:
    """Java's HttpClient offers HTTP/2 with its first request. The connection stays one of HTTP/1.1."""
    with serving() as port, connected(port) as connection:
        for piece in sent:
            connection.sendall(piece)
        connection.sendall(head("Connection: Upgrade", *OFFER, method="GET"))
        connection.sendall(head("Connection: close", "Content-Length: 3") + b"end")
        got = answer(connection)
    assert got.count(b"HTTP/1.1 200 ") == 3
    ends = [part.partition(b"\r\n\r\n")[2] for part in got.split(b"HTTP/1.1 200 OK")[1:]]
    assert ends == [b"hello", b"", b"end"]


def test_no_tunnel_is_made() -> None:
    with serving() as port, connected(port) as connection:
        connection.sendall(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n\x16\x03\x01")
        assert answer(connection).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 "))


def test_requests_that_wait_for_no_answer() -> None:
    held = threading.Event()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":  # as a stream that watches for its client to leave
            pass
        held.set()

    with serving(app) as port, connected(port) as connection:
        got = _flooded(connection, head("Content-Length: 2") + b"hi")
        assert got == b""
        assert held.wait(PATIENCE)


@pytest.mark.parametrize("requests", [1, 2, 5])
def test_a_client_that_leaves(requests: int) -> None:
    """Who answers learns of it, also if more requests came behind."""
    here, gone = threading.Event(), threading.Event()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        here.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    with serving(app) as port:
        with connected(port) as connection:
            connection.sendall((head("Content-Length: 2") + b"hi") * requests)
            assert here.wait(PATIENCE)
        assert gone.wait(PATIENCE)


def test_a_client_that_does_not_read() -> None:
    ended = threading.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            for _ in range(1 << 10):
                await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True})
        finally:
            ended.set()

    with serving(app, read_timeout=0.05) as port, connected(port) as connection:
        connection.sendall(head(method="GET"))
        assert ended.wait(PATIENCE)


def test_more_connections_than_there_may_be() -> None:
    with serving(connections=2) as port:
        holding = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(2)]
        try:
            for one in holding:  # so that the server knows of them
                one.sendall(head("Content-Length: 2") + b"hi")
                assert one.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            with connected(port) as connection:
                connection.sendall(head("Content-Length: 2") + b"hi")
                got = answer(connection)
            assert got.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in got
            silent = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(SPARE + 1)]
            assert answer(silent[-1]) == b""
            for one in (*holding, *silent):
                one.close()
            _until_served(port)
        finally:
            for one in holding:
                one.close()


def _until_served(port: int) -> None:
    """The server notices in its own time that connections have ended."""
    for _ in range(1000):
        with connected(port) as connection:
            connection.sendall(head("Content-Length: 2", "Connection: close") + b"hi")
            if answer(connection).startswith(b"HTTP/1.1 200 "):
                return
    raise AssertionError("the server stays full")


def test_half_a_connection_is_none() -> None:
    """A client that shuts its side down after the request, as `nc -N` does, is taken for gone or is answered."""
    with serving() as port, connected(port) as connection:
        connection.sendall(head("Content-Length: 2", "Connection: close") + b"hi")
        connection.shutdown(socket.SHUT_WR)
        got = answer(connection)
        assert got == b"" or got.endswith(b"hi")
