"""A Hub on this machine: its API and its files as huggingface.co has them, large ones behind a redirect.

What a test wants to go wrong is a field of the Hub. Its files are bytes by path, at one commit.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

__all__ = ["COMMIT", "OTHER_COMMIT", "FakeHub", "cache", "digest_of", "fake_hub", "hub"]

COMMIT, OTHER_COMMIT = "1" * 40, "2" * 40
LARGE = (".gguf", ".safetensors")  # files in large storage


class FakeHub:
    """What the Hub has, how it behaves, and what it was asked.

    files: of each repository, by path. token: what must be sent, if anything. gated: repositories whose files nobody
    may have. cut: after how many bytes of a body the connection breaks, by the number of the request for a body; None
    sends all. ranges: whether parts are sent. spoil: what becomes of a file's bytes on their way. told: what becomes of
    what the API says. location: where a large file's redirect leads; "" to the other server. status: of all answers,
    while it is not 0. refusals: how often the other server will say no.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.commit = COMMIT
        self.token = ""
        self.gated: set[str] = set()
        self.cut: Callable[[int], int | None] = lambda _: None
        self.ranges = True
        self.spoil: Callable[[bytes], bytes] = lambda data: data
        self.told: Callable[[dict[str, Any]], Any] = lambda said: said
        self.location = ""
        self.status = 0
        self.refusals = 0
        self.hold: threading.Event | None = None  # bodies are sent once it is set,
        self.before_hold = 0  # but for so many of their bytes
        self.asked: list[tuple[str, str, Mapping[str, str]]] = []  # method, path, headers
        self.bodies = 0
        self.endpoint = self.elsewhere = ""

    def sent_bytes(self) -> list[str]:
        """The ranges that were asked for, "" for a whole file."""
        return [headers.get("range", "") for method, path, headers in self.asked if method == "GET" and "/cdn/" in path]


def digest_of(path: str, data: bytes) -> str:
    """What the Hub calls a file's ETag."""
    if path.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A Hub at `endpoint`, whose large files are at `elsewhere`, another port."""
    hub = FakeHub()

    class Handler(_Handler):
        state = hub

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    hub.endpoint, hub.elsewhere = (
        f"http://127.0.0.1:{servers[0].server_port}",
        f"http://localhost:{servers[1].server_port}",
    )
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.state, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        if hub.status:
            self._send(hub.status, b"")
        elif found := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.*)", path):
            hub.refusals, refused = max(0, hub.refusals - 1), hub.refusals > 0
            self._send(403, b"") if refused else self._body(hub.files[found[1]][found[2]])
        elif hub.token and self.headers.get("authorization") != f"Bearer {hub.token}":
            self._refuse(401, "RepoNotFound")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.*)", path):
            self._tell(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path):
            self._resolve(found[1], found[3])
        else:
            self._refuse(404, "")

    def _tell(self, repo: str, revision: str) -> None:
        hub = self.state
        if repo not in hub.files:
            self._refuse(401, "RepoNotFound")
            return
        if revision not in ("main", "v1", hub.commit):
            self._refuse(404, "RevisionNotFound")
            return
        listed = []
        for path, data in hub.files[repo].items():
            entry = {"rfilename": path, "size": len(data), "blobId": digest_of("", data)}
            if path.endswith(LARGE):
                entry["lfs"] = {"sha256": digest_of(path, data), "size": len(data), "pointerSize": 134}
            listed.append(entry)
        said = hub.told({"id": repo, "sha": hub.commit, "siblings": listed})
        self._send(200, json.dumps(said).encode(), {"content-type": "application/json"})

    def _resolve(self, repo: str, path: str) -> None:
        hub = self.state
        if repo in hub.gated:
            self._refuse(403, "GatedRepo")
            return
        data = hub.files.get(repo, {}).get(path)
        if data is None:
            self._refuse(404, "EntryNotFound")
            return
        etag = digest_of(path, data)
        headers = {"x-repo-commit": hub.commit, "etag": f'"{etag}"'}
        if path.endswith(LARGE):
            there = hub.location or f"{hub.elsewhere}/cdn/{repo}/{path}"
            linked = {"x-linked-etag": f'"{etag}"', "x-linked-size": str(len(data)), "location": there}
            self._send(302, b"", headers | linked)
        else:
            self._body(data, headers)

    def _body(self, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        hub = self.state
        data, status, more = hub.spoil(data), 200, dict(headers or {})
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        if wanted and hub.ranges:
            begin = int(wanted[1])
            more["content-range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            status, data = 206, data[begin:]
        self._send(status, data, more)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        hub = self.state
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if status >= 300 or "content-type" in (headers or {}):
            self.wfile.write(data)
            return
        most = hub.cut(hub.bodies)
        hub.bodies += 1
        sent = data if most is None else data[:most]
        if hub.hold is not None:
            self.wfile.write(sent[: hub.before_hold])
            sent = sent[hub.before_hold :]
            hub.hold.wait(30)
        with suppress(OSError):  # who asked may be gone
            self.wfile.write(sent)
        if most is not None and most < len(data):
            self.wfile.flush()
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"x-error-code": code} if code else {})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where models are pulled to."""
    for name in (
        "HF_HOME",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_ENDPOINT",
        "HF_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return tmp_path / "hub"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub with a repository of GGUF files, one of them split, and one of SafeTensors files."""
    del cache
    with fake_hub() as made:
        made.files["org/ggufs"] = {
            "README.md": b"# Models",
            "model.Q8_0.gguf": b"eight" * 2000,
            "model.Q4_K_M.gguf": b"four" * 1000,
            "mmproj-model-f16.gguf": b"an eye",
            "big/model-BF16-00001-of-00002.gguf": b"first" * 100,
            "big/model-BF16-00002-of-00002.gguf": b"second" * 50,
        }
        made.files["org/tensors"] = {
            "config.json": b"{}",
            "tokenizer.json": b'{"model": {}}',
            "model-00001-of-00002.safetensors": b"one" * 100,
            "model-00002-of-00002.safetensors": b"two" * 100,
            "model.safetensors.index.json": b"{}",
            "pytorch_model.bin": b"pickled" * 1000,
            "original/model.safetensors": b"others",
        }
        monkeypatch.setenv("HF_ENDPOINT", made.endpoint)
        yield made
