"""By which names the server may be called, and by which web pages.

A web page can give its own name the address of this machine (DNS rebinding), and then read what the server answers, as
if both were one site. So a request must name the server by an address, which nobody can rebind, by a name that means
this machine, or by one that the operator allows. A browser tells with `Origin` which page sends a request: only those
of the server itself, and those that CORS allows, may.
"""

import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from sotol.errors import plain
from sotol.server.guard.refusals import send_problem
from sotol.server.problems import Problem
from sotol.server.settings import Settings

__all__ = ["Hosts", "host_pattern", "origin_pattern"]


class Hosts:
    """Refuses requests by their Host and Origin."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        machine = socket.gethostname()
        own = {"localhost", "*.localhost", machine, f"{machine}.local", settings.host}
        names = [*settings.allowed_hosts, *(name for name in own if name and ":" not in name)]
        # No page can send requests to a Unix socket, and whoever does names the server by whatever name.
        everything = settings.uds is not None and not settings.allowed_hosts
        self._hosts = host_pattern(["*"] if everything else names)
        self._origins = origin_pattern(settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem(scope["headers"])
        if problem is not None:
            await send_problem(scope, send, problem, close=True)
        else:
            await self._app(scope, receive, send)

    def _problem(self, headers: Iterable[tuple[bytes, bytes]]) -> Problem | None:
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        if len(hosts) != 1:
            return Problem(400, f"a request has one Host header, not {len(hosts)}", code="bad_host")
        (host,) = hosts
        if not self._hosts.fullmatch(host) and not _is_address(host):
            said = f"the server may not be called {plain(host, 100)!r}: its operator can allow that (--allowed-host)"
            return Problem(403, said, code="host_not_allowed")
        for origin in origins:
            if not self._origins.fullmatch(origin) and origin.partition("://")[2].lower() != host.lower():
                said = f"web pages of {plain(origin, 100)!r} may not call the server: its operator can allow that"
                return Problem(403, f"{said} (--cors-origin)", code="origin_not_allowed")
        return None


def host_pattern(names: Iterable[str]) -> "re.Pattern[str]":
    """What the Host header may be; a name without a port has any."""
    patterns = []
    for name in names:
        if name == "*":
            patterns.append(r".*")
        else:
            bare = re.sub(r":\d+$", "", name)
            port = re.escape(name[len(bare) :]) or r"(:\d+)?"
            patterns.append(_wild(bare) + r"\.?" + port)
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)", re.IGNORECASE)


def origin_pattern(origins: Iterable[str]) -> "re.Pattern[str]":
    """What the Origin header may be. Nothing, if there are no origins."""
    patterns = []
    for origin in origins:
        if origin == "*":
            patterns.append(r".*")
        else:
            scheme, _, rest = origin.partition("://")
            found: Any = re.fullmatch(r"(\[.*\]|[^:]*)(?::(.*))?", rest)
            host, port = found[1], found[2]
            ending = "" if port is None else r"(:\d+)?" if port == "*" else f":{port}"
            patterns.append(re.escape(scheme) + "://" + _wild(host) + ending)
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)", re.IGNORECASE)


def _wild(host: str) -> str:
    """A host, any host, or one below another."""
    if host == "*":
        return r"[\w.-]+"
    return r"[\w.-]+" + re.escape(host[1:]) if host.startswith("*.") else re.escape(host)


def _is_address(host: str) -> bool:
    """Whether the Host header is an address, with a port or without."""
    bare = re.sub(r":\d{1,5}$", "", host) if host.startswith("[") or host.count(":") == 1 else host
    try:
        ip_address(bare.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
