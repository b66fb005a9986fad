"""A request to a server whose answer comes line by line. Knows no engine."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

__all__ = ["ServerError", "posted"]

PATIENCE = 600.0  # seconds without a line until a request has failed


class ServerError(Exception):
    """What the server answered instead of tokens."""


@contextmanager
def posted(address: str, path: str, body: Mapping[str, Any]) -> Iterator[HTTPResponse]:
    """The lines of the answer to a body of JSON. Leaving it closes the connection, and the server stops.

    Raises ServerError, OSError.
    """
    place = urlsplit(address)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=PATIENCE)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise ServerError(f"status {response.status}: {response.read(200).decode(errors='replace')}")
        yield response
    finally:
        connection.close()
