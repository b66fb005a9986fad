"""A server over HTTP, as commands talk to it: JSON there and back, and events that stream. By Python's own urllib.

It is `sotol serve`, or any other that speaks OpenAI's API, where that is enough. Redirects are not followed: they would
take the key along.
"""

import http.client
import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, ProxyHandler, Request, build_opener

from sotol.errors import SotolError, plain

__all__ = ["DEFAULT_SERVER", "ServerClient"]

DEFAULT_SERVER = "http://127.0.0.1:8080"
MOST_BYTES = 64 << 20  # of an answer
LONGEST_LINE = 16 << 20  # bytes of an event
SECONDS = 600.0  # of silence: a model may have to be loaded


class ServerClient:
    """What a server is asked. Errors are SotolErrors, with what the server says."""

    def __init__(self, address: str | None = None, key: str | None = None) -> None:
        """address: as http://host:port, also without http://, also with /v1; or unix:/path of a socket.

        key: of the server's API keys. ValueError for what is no address.
        """
        given = (address or DEFAULT_SERVER).strip()
        path = given.removeprefix("unix:") if given.startswith("unix:") else None
        if path is not None:
            given = "http://localhost"
        if "://" not in given:
            given = f"http://{given}"
        try:
            parts = urlsplit(given)
            right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            right = False
        if not right or parts.query or parts.fragment or not given.isprintable() or " " in given:
            raise ValueError(f"--server is {plain(repr(address))}; it must be an address as {DEFAULT_SERVER}")
        self._base = re.sub(r"(/v1)?/*$", "", given)
        self.address = self._base if path is None else f"unix:{path}"
        self._head = {"content-type": "application/json", "user-agent": "sotol"}
        if key:
            first = re.split(r"[,\s]+", key.strip())[0]  # a server's own variable may have several
            self._head["authorization"] = f"Bearer {first}"
        self._opener = build_opener(_NoRedirects) if path is None else build_opener(_OverSocket(path), ProxyHandler({}))

    def models(self) -> list[dict[str, Any]]:
        """The entries of /v1/models."""
        found = self.ask("/v1/models").get("data")
        if not isinstance(found, list) or not all(isinstance(m, dict) and isinstance(m.get("id"), str) for m in found):
            raise SotolError(f"{self.address} has no list of models: it does not speak OpenAI's API")
        return found

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object that a path answers, to a POST if there is a body."""
        with self._opened(path, body) as response:
            data = response.read(MOST_BYTES + 1)
        try:
            found = json.loads(data) if len(data) <= MOST_BYTES else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise SotolError(f"{self.address}{path} does not answer in JSON")
        return found

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any] | str]:
        """The server-sent events of an answer as objects, and comments as texts; to its proper end.

        Closing the iterator closes the connection, which ends the server's work. SotolError for an event that is one,
        and for an answer that is cut off.
        """
        with self._opened(path, {**body, "stream": True}) as response:
            while line := response.readline(LONGEST_LINE):
                text = line.decode(errors="replace").rstrip("\r\n")
                if text.startswith(":"):
                    yield text.removeprefix(":").strip()
                if not text.startswith("data:"):
                    continue
                data = text.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                try:
                    event = json.loads(data)
                except (ValueError, RecursionError):
                    event = None
                if not isinstance(event, dict):
                    raise SotolError(f"{self.address}: an event is no JSON object: {plain(data, 80)}")
                if "error" in event:
                    raise SotolError(f"{self.address}: {_message(event)}")
                yield event
        raise SotolError(f"{self.address} ended the answer before it was complete")

    @contextmanager
    def _opened(self, path: str, body: Mapping[str, Any] | None) -> Iterator[Any]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._base + path, data, self._head)
        try:
            with closing(self._opener.open(request, timeout=SECONDS)) as response:
                yield response
        except HTTPError as error:
            with closing(error):
                raise SotolError(self._refusal(error)) from None
        except URLError as error:
            reason = error.reason
            said = str(getattr(reason, "strerror", None) or reason).lower()
            raise SotolError(f"no server answers at {self.address}: {plain(said)}") from None
        except (http.client.HTTPException, OSError) as error:
            said = str(getattr(error, "strerror", None) or error) or type(error).__name__
            raise SotolError(f"the connection to {self.address} broke: {plain(said)}") from None

    def _refusal(self, error: HTTPError) -> str:
        if error.code == 401:
            return f"{self.address} wants a key: give --api-key, or set SOTOL_API_KEY"
        try:
            said = _message(json.loads(error.read(1 << 20)))
        except (OSError, ValueError, RecursionError, http.client.HTTPException):
            said = ""
        return f"{self.address}: {said or f'HTTP {error.code} {plain(error.reason)}'}"


class _Socket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _OverSocket(HTTPHandler):
    """Opens addresses over a Unix socket, whatever host they name."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def http_open(self, req: Request) -> http.client.HTTPResponse:
        """The response to a request."""
        return self.do_open(lambda _host, timeout, **_: _Socket(self._path, timeout), req)  # type: ignore[arg-type]


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: the redirect is an error."""


def _message(said: Any) -> str:
    """The message of an error in OpenAI's shape, or in Ollama's."""
    error = said.get("error") if isinstance(said, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return plain(message, 500) if isinstance(message, str) else ""
