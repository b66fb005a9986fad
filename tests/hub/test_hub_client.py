"""Which redirects are followed, by a client whose network is a function."""

import socket
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import huggingface_hub
import pytest

from sotol.errors import SotolError
from sotol.hub.client import HubClient, Unreachable

httpx: Any = import_module(type(huggingface_hub.get_session()).__module__.partition(".")[0])  # or httpx2
PUBLIC, PRIVATE = "93.184.216.34", "10.1.2.3"
NAMES = {"hub.example": PUBLIC, "cdn.example": PUBLIC, "inside.example": PRIVATE, "local.example": "127.0.0.1"}
Answer = Callable[[Any], Any]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Any:
    """network(answer): from now on `answer` is what the network says; the hosts that were asked come back."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    look_up = socket.getaddrinfo

    def found(host: str, *options: Any, **more: Any) -> Any:
        return look_up(NAMES.get(host, host), *options, **more)

    monkeypatch.setattr(socket, "getaddrinfo", found)

    def start(answer: Answer) -> list[str]:
        asked: list[str] = []

        def noted(request: Any) -> Any:
            asked.append(request.url.host)
            return answer(request)

        client = httpx.Client(transport=httpx.MockTransport(noted), follow_redirects=True)
        monkeypatch.setattr(huggingface_hub, "get_session", lambda: client)
        return asked

    return start


def redirecting(location: str, status: int = 302) -> Answer:
    def answer(request: Any) -> Any:
        if request.url.host == "hub.example":
            return httpx.Response(status, headers={"location": location})
        return httpx.Response(200, content=iter([b"[1]"]))

    return answer


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_to_another_public_host(status: int, network: Any) -> None:
    asked = network(redirecting("https://cdn.example/x", status))
    assert HubClient("https://hub.example").json("models", "org/repo") == [1]
    assert asked == ["hub.example", "cdn.example"]


@pytest.mark.parametrize(
    "location",
    [
        "https://inside.example/x", "https://local.example/x", "https://127.0.0.1/x", "https://169.254.169.254/latest",
        "https://[::1]/", "https://192.168.0.1:8443/", "//10.0.0.1/x", "https://[::ffff:10.0.0.1]/", "https://0.0.0.0/",
        "https://localhost/x", "https://[fe80::1]/", "https://100.64.0.1/",
    ],
)  # fmt: skip
def test_to_a_private_address(location: str, network: Any) -> None:
    asked = network(redirecting(location))
    with pytest.raises(SotolError, match="an address of a private network: refused"):
        HubClient("https://hub.example").json("models", "org/repo")
    assert asked == ["hub.example"]


def test_a_hub_of_the_private_network_may(network: Any) -> None:
    def answer(request: Any) -> Any:
        if request.url.host == "inside.example":
            return httpx.Response(302, headers={"location": "https://127.0.0.1/x"})
        return httpx.Response(200, content=iter([b"2"]))

    asked = network(answer)
    assert HubClient("https://inside.example").json("models", "org/repo") == 2
    assert asked == ["inside.example", "127.0.0.1"]


def test_without_encryption(network: Any) -> None:
    asked = network(redirecting("http://cdn.example/x"))
    with pytest.raises(SotolError, match=r"leads to cdn\.example without encryption: refused"):
        HubClient("https://hub.example").json("models", "org/repo")
    assert asked == ["hub.example"]


def test_the_token_stays_with_the_hub(network: Any) -> None:
    sent: list[tuple[str, str | None]] = []

    def answer(request: Any) -> Any:
        sent.append((str(request.url), request.headers.get("authorization")))
        if len(sent) == 1:
            return httpx.Response(307, headers={"location": "/other"})
        if len(sent) == 2:
            return httpx.Response(307, headers={"location": "https://hub.example:444/x"})
        return httpx.Response(200, content=iter([b"3"]))

    network(answer)
    assert HubClient("https://hub.example").json("models", "org/repo") == 3
    assert sent == [
        ("https://hub.example/api/models", "Bearer hf_secret"),
        ("https://hub.example/other", "Bearer hf_secret"),
        ("https://hub.example:444/x", None),
    ]


def test_a_network_that_fails(network: Any) -> None:
    def answer(request: Any) -> Any:
        raise httpx.ConnectTimeout("too slow", request=request)

    network(answer)
    with pytest.raises(Unreachable, match=r"hub\.example: too slow"):
        HubClient("https://hub.example").json("models", "org/repo")


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 10000])
def test_answers_that_are_no_json(body: bytes, network: Any) -> None:
    network(lambda _: httpx.Response(200, content=iter([body])))
    with pytest.raises(SotolError, match="does not speak the Hub's API"):
        HubClient("https://hub.example").json("models", "org/repo")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SotolError, match=r'pip install "sotol\[hub\]"'):
        HubClient("https://hub.example")
