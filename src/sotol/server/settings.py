"""What an operator decides about the server. Imports nothing of it: the command line shows defaults from here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from sotol.errors import SotolError, meant, plain

__all__ = ["LOG_FORMATS", "LOG_LEVELS", "Settings", "is_loopback", "read_keys"]

LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOOPBACK = ("localhost", "ip6-localhost")
# option: (least, most) of a whole number
WHOLE = {
    "port": (0, 65535),
    "uds_mode": (0, 0o777),
    "requests_per_minute": (1, 10**9),
    "tokens_per_minute": (1, 10**12),
    "body_bytes": (1, 1 << 32),
    "header_bytes": (256, 1 << 20),
    "header_count": (4, 10_000),
    "connections": (1, 1_000_000),
    "prompt_tokens": (1, 1 << 22),
    "answer_tokens": (1, 1 << 22),
    "choices": (1, 4096),
    "schema_bytes": (2, 1 << 32),
    "max_memory": (1, 1 << 60),
}
# option: (least, most) of a number of seconds
SECONDS = {
    "read_timeout": (0.01, 86_400.0),
    "request_timeout": (0.01, 604_800.0),
    "stream_timeout": (0.01, 604_800.0),
    "idle_timeout": (0.0, 86_400.0),
    "shutdown_grace": (0.0, 86_400.0),
}
# "*", a host, or "*." and the end of one; a host may have a port.
HOST = re.compile(r"\*|(\*\.)?[a-z0-9._-]+(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?", re.ASCII | re.IGNORECASE)
# "*", or scheme://host[:port], where the host may be "*" or begin with "*.", and the port may be "*".
ORIGIN = re.compile(
    r"\*|[a-z][a-z0-9+.-]*://(\*|(\*\.)?[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(\d{1,5}|\*))?", re.ASCII | re.IGNORECASE
)
KEY = re.compile(r"[\x21-\x7e]{1,512}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to serve; a wrong value raises ValueError that names the option and what it may be.

    host, port: where to listen; port 0 takes a free one. uds: the path of a Unix socket to listen on instead, with the
        permissions `uds_mode`.
    root_path: the path under which a reverse proxy shows the server, which it strips from requests.
    trusted_proxies: addresses whose X-Forwarded-For and -Proto are believed; "*" believes everybody.
    ssl_certfile, ssl_keyfile, ssl_keyfile_password: PEM files for HTTPS; the key may be in the certificate's file.
    api_keys: one of them must come with each request, if there are any. open: without keys, listen where other machines
        reach the server, too. open_metrics: /metrics needs no key.
    requests_per_minute, tokens_per_minute: of each key, or of each address where there are no keys; None: no limit.
    cors_origins: web pages of these origins may call the server: "https://example.org", "http://localhost:*", "*".
    allowed_hosts: names by which the server may be called, beside addresses and those of this machine: "example.org",
        "*.example.org", "*". Others are refused: a web page could have given its own name this machine's address.
    body_bytes, header_bytes, header_count: the most of a request. connections: the most at a time.
    prompt_tokens, answer_tokens: the most of a request; None: what the context holds. choices: the most answers to a
        request. schema_bytes: the longest schema, grammar or regular expression, and that of all tools
    read_timeout: seconds in which a request must have arrived. request_timeout: seconds until an answer begins.
    stream_timeout: seconds that an answer may stream. idle_timeout: seconds that an idle connection is
        kept.
    keep_alive: seconds that a model stays loaded when nobody uses it, -1 for ever; None: for ever if there is one
        model, else five minutes. max_memory: bytes of all models that are loaded at a time; None: no limit. allow_pull:
        whoever may use the server may let it pull models of the Hub.
    shutdown_grace: seconds that running answers have to end, once the server is told to stop.
    log_format: "text" or "json", an object a line. log_level: "debug", "info", "warning" or "error". log_prompts: write
        what requests ask to the log, too.
    keep_responses: keep those of /v1/responses in the user's data folder, and not in memory.
    page: the chat page, which keeps conversations in the user's data folder. open_page: show it in a browser, once
        the server is ready.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    uds: Path | None = None
    uds_mode: int = 0o600
    root_path: str = ""
    trusted_proxies: tuple[str, ...] = ()
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_keyfile_password: str | None = field(default=None, repr=False)
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    open: bool = False
    open_metrics: bool = False
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    body_bytes: int = 32 << 20
    header_bytes: int = 32 << 10
    header_count: int = 100
    connections: int = 512
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    choices: int = 16
    schema_bytes: int = 1 << 20
    read_timeout: float = 60.0
    request_timeout: float = 600.0
    stream_timeout: float = 3600.0
    idle_timeout: float = 5.0
    keep_alive: float | None = None
    max_memory: int | None = None
    allow_pull: bool = False
    shutdown_grace: float = 30.0
    log_format: str = "text"
    log_level: str = "info"
    log_prompts: bool = False
    keep_responses: bool = False
    page: bool = True
    open_page: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """The settings of keyword arguments; None stands for an option's default. TypeError for an unknown one."""
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise TypeError(f"the server has no option {name!r:.100}: {meant(name, known)}")
        return cls(**{name: value for name, value in options.items() if value is not None})

    def __post_init__(self) -> None:
        defaults = {f.name: f.default for f in fields(self)}
        for name, (least, most) in WHOLE.items():
            _check_whole(name, getattr(self, name), least, most, optional=defaults[name] is None)
        for name, (low, high) in SECONDS.items():
            _check_seconds(name, getattr(self, name), low, high)
        for name in ("open", "open_metrics", "allow_pull", "log_prompts", "keep_responses", "page", "open_page"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r:.80}; it must be True or False")
        for name, known in (("log_format", LOG_FORMATS), ("log_level", LOG_LEVELS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r:.80}; it must be one of {', '.join(known)}")
        for name in ("trusted_proxies", "api_keys", "cors_origins", "allowed_hosts"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        if self.keep_alive is not None and self.keep_alive != -1:
            _check_seconds("keep_alive", self.keep_alive, 0.0, 31_536_000.0, " (or -1, for ever)")
        self._check_places()
        self._check_names()

    @property
    def reachable(self) -> bool:
        """Whether other machines reach the server."""
        return self.uds is None and not is_loopback(self.host)

    def _check_places(self) -> None:
        if self.open_page and (not self.page or self.uds is not None):
            raise ValueError("open_page shows the page in a browser: it goes with neither a socket nor without a page")
        for name in ("uds", "ssl_certfile", "ssl_keyfile"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
            if not isinstance(getattr(self, name), Path | None):
                raise ValueError(f"{name} is {getattr(self, name)!r:.80}; it must be a path")
        if not isinstance(self.host, str) or not self.host or not self.host.isprintable() or " " in self.host:
            raise ValueError(f"host is {self.host!r:.80}; it must be an address or a name, as 127.0.0.1")
        if not isinstance(self.root_path, str) or not re.fullmatch(r"(/[\w.~-]+)*", self.root_path, re.ASCII):
            raise ValueError(f"root_path is {self.root_path!r:.80}; it must be a path as /llm, without a / at its end")
        if self.ssl_certfile is None and (self.ssl_keyfile is not None or self.ssl_keyfile_password is not None):
            raise ValueError("ssl_keyfile and ssl_keyfile_password belong to a certificate: give ssl_certfile")
        if not isinstance(self.ssl_keyfile_password, str | None):
            raise ValueError("ssl_keyfile_password must be text")
        if self.reachable and not self.api_keys and not self.open:
            raise ValueError(
                f"host is {plain(self.host)}, where other machines reach the server, and there are no API keys:"
                " give api_keys, or open to serve whoever comes"
            )

    def _check_names(self) -> None:
        for number, key in enumerate(self.api_keys):
            if not KEY.fullmatch(key):  # never shown: it is a secret
                raise ValueError(f"api_keys[{number}] is no key: it must be 1 to 512 ASCII characters, without spaces")
        for name, pattern, example in (
            ("cors_origins", ORIGIN, "https://example.org, http://localhost:* or *"),
            ("allowed_hosts", HOST, "example.org, *.example.org or *"),
        ):
            for text in getattr(self, name):
                if not pattern.fullmatch(text):
                    raise ValueError(f"{name} has {plain(repr(text))}; it must be as {example}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at this address or name."""
    from ipaddress import ip_address  # noqa: PLC0415  (3 ms, which `sotol --help` does without)

    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host.casefold() in LOOPBACK
    return address.is_loopback


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file: one a line, with empty lines and comments (#) between. SotolError if it can't be read."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError:
        raise SotolError(f"{plain(path)}: a file of API keys is ASCII text, one key a line") from None
    except OSError as error:
        raise SotolError(f"{plain(path)}: {str(error.strerror or error).lower()}") from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))
    if not keys:
        raise SotolError(f"{plain(path)} has no API key: write one a line")
    return keys


def _check_whole(name: str, value: object, least: int, most: int, *, optional: bool) -> None:
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        none = ", or None" if optional else ""
        raise ValueError(f"{name} is {value!r:.80}; it must be a whole number from {least} to {most}{none}")


def _check_seconds(name: str, value: object, least: float, most: float, more: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r:.80}; it must be a number of seconds from {least:g} to {most:g}{more}")


def _texts(name: str, value: object) -> tuple[str, ...]:
    """A tuple of texts; ValueError for a single text, which would be taken for its letters."""
    if not isinstance(value, tuple | list) or not all(isinstance(text, str) for text in value):
        shown = "" if name == "api_keys" else f" is {value!r:.80};"
        raise ValueError(f"{name}{shown} must be a tuple of texts")
    return tuple(value)
