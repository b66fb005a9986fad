"""The files of the page. They say for themselves that a browser runs nothing else, and loads nothing from elsewhere."""

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sotol.server.problems import Problem

__all__ = ["HEADERS", "asset", "index", "to_page"]

# https://www.w3.org/TR/CSP3/ and https://www.w3.org/TR/trusted-types/: only the page's own files run, nothing becomes
# HTML but by DOMPurify, nothing is asked of other hosts, and nobody frames the page.
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "font-src": "'self'",
    "img-src": "'self' data: blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "dompurify",
}
HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
KINDS = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "woff2": "font/woff2",
}
PACKED = {"css", "html", "js", "mjs", "svg", "txt"}
FOREVER = "public, max-age=31536000, immutable"


class _File(NamedTuple):
    kind: str
    data: bytes
    packed: bytes | None


async def to_page(_: Request) -> Response:
    """The address of the server itself leads to the page."""
    return RedirectResponse("ui/", 307, HEADERS)


async def index(request: Request) -> Response:
    """The page. Its files have the digest of all in their address, so that a browser keeps them until they change."""
    digest, known = _files()
    text = known["index.html"].data.replace(b"{digest}", digest.encode())
    tag = f'"{digest}"'
    headers = {**HEADERS, "cache-control": "no-cache", "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(None, 304, headers)
    return Response(text, 200, {**headers, "content-type": KINDS["html"]})


async def asset(request: Request) -> Response:
    """One of the page's files, by a path that has their digest."""
    digest, known = _files()
    found = known.get(request.path_params["path"])
    if found is None or request.path_params["digest"] != digest:
        raise Problem(404, "the page has no such file: load it anew")
    headers = {**HEADERS, "cache-control": FOREVER, "content-type": found.kind, "vary": "accept-encoding"}
    if found.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, 200, {**headers, "content-encoding": "gzip"})
    return Response(found.data, 200, headers)


@cache
def _files() -> tuple[str, dict[str, _File]]:
    """All files by their paths, and a digest of them."""
    known = dict(_below(files("sotol.server.ui") / "static", ""))
    digest = hashlib.sha256()
    for path in sorted(known):
        digest.update(f"{path} {len(known[path].data)} ".encode() + known[path].data)
    return digest.hexdigest()[:16], known


def _below(folder: Traversable, before: str) -> list[tuple[str, _File]]:
    found: list[tuple[str, _File]] = []
    for entry in folder.iterdir():
        path = before + entry.name
        ending = entry.name.rpartition(".")[2]
        if entry.is_dir():
            found += _below(entry, f"{path}/")
        elif ending in KINDS:
            data = entry.read_bytes()
            packed = gzip.compress(data, 6, mtime=0) if ending in PACKED else None
            found.append((path, _File(KINDS[ending], data, packed)))
    return found
