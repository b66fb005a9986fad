"""Parses requests as httptools does, but never leaves HTTP/1.1 for another protocol, whatever a client offers.

Where a client offers one (`Upgrade: h2c`, as Java's HttpClient does with its first request), httptools takes what
follows the head for that protocol, and a body would be lost. A server that takes no offer reads on (RFC 9110, section
7.8): here with another parser, which is given a head that says no more than how long the body is.
"""

from typing import Protocol

from httptools import HttpParserUpgrade, HttpRequestParser

__all__ = ["Callbacks", "Parser"]

FRAMING = (b"content-length", b"transfer-encoding")


class Callbacks(Protocol):
    """Who is told of what is parsed, as of `HttpRequestParser`."""

    def on_message_begin(self) -> None: ...
    def on_url(self, url: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


class Parser:
    """What uvicorn's connections use of `HttpRequestParser`, with that behind it."""

    def __init__(self, told: Callbacks) -> None:
        self._told = told
        self._parser = self._fresh()
        self._framing: list[bytes] = []  # the lines of the head that say where the body ends
        self._again = False  # a head is parsed that has been told already

    def feed_data(self, data: bytes) -> None:
        """Parse more. Raises HttpParserError."""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as offer:
            rest = data[offer.args[0] :]
            self._parser, self._again = self._fresh(), True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(self._framing) + b"\r\n")
            self._again = False
            if rest:
                self.feed_data(rest)

    def get_method(self) -> bytes:
        """As of httptools."""
        return self._parser.get_method()

    def get_http_version(self) -> str:
        """As of httptools."""
        return self._parser.get_http_version()

    def should_keep_alive(self) -> bool:
        """As of httptools."""
        return self._parser.should_keep_alive()

    def should_upgrade(self) -> bool:
        """Never."""
        return False

    # ---- what httptools tells

    def on_message_begin(self) -> None:
        """A head begins."""
        if not self._again:
            self._framing.clear()
            self._told.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the address."""
        if not self._again:
            self._told.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        if self._again:
            return
        if name.lower() in FRAMING:
            self._framing.append(name + b": " + value + b"\r\n")
        self._told.on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is complete."""
        if not self._again:
            self._told.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._told.on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete, unless its body is still to come."""
        if not self._parser.should_upgrade():
            self._told.on_message_complete()

    def _fresh(self) -> HttpRequestParser:
        parser = HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn: it answers before it looks further
        return parser
