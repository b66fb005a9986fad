"""The Hub over HTTP: its answers and its files, with every redirect looked at before it is followed.

The connection is `huggingface_hub`'s (its proxies, certificates and client factory), which would itself follow any
redirect. Here none leads from a public endpoint to a private address, from HTTPS to HTTP, or takes the token along to
another host. A name that is looked up again when the connection is made could still lead elsewhere; nothing secret is
sent there, and no file is kept whose hash is not the Hub's.
"""

import json
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import quote, urljoin, urlsplit

from sotol.errors import SotolError, plain

__all__ = ["HubClient", "Response", "Unreachable"]

INSTALL = 'pulling models needs one more package: pip install "sotol[hub]"'
HOPS = 8
REDIRECTS = (301, 302, 303, 307, 308)
SECONDS = 30.0  # that a connection may be silent
MOST_JSON = 64 << 20  # bytes of an answer; the largest repositories have some MB


class Response(Protocol):
    """What is used of httpx's (or httpx2's) response."""

    status_code: int

    @property
    def headers(self) -> Mapping[str, str]: ...
    def iter_raw(self) -> Iterator[bytes]: ...


class Unreachable(Exception):
    """The connection broke, or the Hub has a bad moment: another try may succeed."""


class HubClient:
    """Asks a Hub. Each method raises SotolError for what it refuses, Unreachable where another try may succeed."""

    def __init__(self, endpoint: str, token: str | None = None) -> None:
        """token: that of the user's, for private and gated models; None: the one who is logged in, if anybody is.

        SotolError without the package that this needs.
        """
        try:
            from huggingface_hub import get_session, get_token  # noqa: PLC0415  (only pulling needs it)
        except ModuleNotFoundError:
            raise SotolError(INSTALL) from None
        self.endpoint = endpoint
        self._token = get_token() if token is None else token
        self._session: Any = get_session()
        self._failures, self._bad = _errors_of(self._session)
        self._private = _is_private(urlsplit(endpoint).hostname or "")

    def json(self, path: str, about: str) -> Any:
        """The answer to a path of the API. about: what is asked for, as "ORG/REPO", for messages."""
        with self.get(f"{self.endpoint}/api/{path}", about) as response:
            data = bytearray()
            for chunk in response.iter_raw():
                data += chunk
                if len(data) > MOST_JSON:
                    raise SotolError(f"{self.endpoint} says more than {MOST_JSON >> 20} MiB about {about}")
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise SotolError(f"{self.endpoint} does not speak the Hub's API: its answer is no JSON") from None

    def file(self, repo: str, commit: str, path: str) -> str:
        """The address of a file."""
        return f"{self.endpoint}/{repo}/resolve/{commit}/{quote(path)}"

    @contextmanager
    def get(self, address: str, about: str, headers: Mapping[str, str] | None = None) -> Iterator[Response]:
        """The response to a GET, after redirects, its body still to come; refused ones are errors.

        about: the model that it is about, as "ORG/REPO".

        Its body is not compressed: what it counts is what a file has.
        """
        for _ in range(HOPS):
            sent = {"accept-encoding": "identity", "user-agent": "sotol", **(headers or {})}
            if self._token and _origin(address) == _origin(self.endpoint):
                sent["authorization"] = f"Bearer {self._token}"
            try:
                with self._session.stream(
                    "GET", address, headers=sent, follow_redirects=False, timeout=SECONDS
                ) as response:
                    if response.status_code not in REDIRECTS:
                        self._check(response, about, address)
                        yield response
                        return
                    address = self._next(address, response.headers.get("location", ""))
            except self._failures as error:
                raise Unreachable(
                    f"{plain(urlsplit(address).netloc)}: {plain(error) or type(error).__name__}"
                ) from error
            except self._bad:
                raise SotolError(f"{self.endpoint} leads to {plain(repr(address), 80)}, which is no address") from None
        raise SotolError(f"{self.endpoint} leads to {HOPS} addresses, one after the other, for {about}")

    def _next(self, address: str, location: str) -> str:
        """The address that a redirect leads to; SotolError for one that is not followed."""
        try:
            there = urljoin(address, location)
            parts = urlsplit(there)
            host = parts.hostname or ""
        except ValueError:
            host, there, parts = "", location, urlsplit("")
        if not host or parts.scheme not in ("http", "https"):
            raise SotolError(f"{self.endpoint} leads to {plain(repr(there), 80)}, which is no address")
        if parts.scheme == "http" and self.endpoint.startswith("https:"):
            raise SotolError(f"{self.endpoint} leads to {plain(host)} without encryption: refused")
        if not self._private and _is_private(host):
            raise SotolError(f"{self.endpoint} leads to {plain(host)}, an address of a private network: refused")
        return there

    def _check(self, response: Response, about: str, address: str) -> None:
        """SotolError for a status that says no, Unreachable for one that may say yes later."""
        status = response.status_code
        if status < 400 or status == 416:  # 416: the caller asked for a part that there is not
            return
        elsewhere = _origin(address) != _origin(self.endpoint)
        if status in (408, 425, 429) or status >= 500 or (elsewhere and status in (401, 403)):  # a link may expire
            raise Unreachable(f"{plain(urlsplit(address).netloc)}: HTTP {status}")
        code = response.headers.get("x-error-code", "")
        page = f"{self.endpoint}/{about.partition('@')[0]}"
        if code == "GatedRepo" or (status == 403 and not code):
            raise SotolError(
                f"{about} is gated: ask for access at {page}, then give a token of that account"
                " (HF_TOKEN, --token, or `hf auth login`)"
            )
        if status == 401 or code == "RepoNotFound":
            known = "or the token may not see it" if self._token else "a private one needs a token (HF_TOKEN, --token)"
            raise SotolError(f"{self.endpoint} knows no model {about}: check the name; {known}")
        if code == "RevisionNotFound":
            raise SotolError(f"{about}: the repository has no such revision")
        said = plain(response.headers.get("x-error-message", ""), 120)
        raise SotolError(f"{about}: {self.endpoint} refuses, with HTTP {status}{said and ': ' + said}")


def _origin(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc.casefold()


def _is_private(host: str) -> bool:
    """Whether a host is, or has a name that leads to, an address that is not the public internet's.

    A name that can't be looked up here is left to a proxy, which may know it.
    """
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False
    return any(not ip_address(str(address).partition("%")[0]).is_global for address in found)


def _errors_of(session: object) -> tuple[type[Exception], type[Exception]]:
    """The exceptions of the library that the session is of: for transport, and for an address that is none."""
    for kind in type(session).__mro__:
        library = sys.modules[kind.__module__.partition(".")[0]]
        if hasattr(library, "TransportError") and hasattr(library, "InvalidURL"):
            return library.TransportError, library.InvalidURL
    raise SotolError("huggingface_hub's client is of no library that sotol knows: upgrade sotol")
