"""One file, from an address into a partial file beside its place: gone on with where it was cut, and checked whole."""

import errno
import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from time import sleep
from typing import Protocol

from sotol.errors import SotolError, plain
from sotol.hub.choosing import RepoFile
from sotol.hub.client import HubClient, Response, Unreachable

__all__ = ["Report", "fetch", "write_all"]

TRIES = 5  # that bring nothing, one after the other, until it is given up
LONGEST_PAUSE = 16.0  # seconds between two
PIECE = 1 << 20  # bytes that are read of a partial file at once
FULL = (errno.ENOSPC, errno.EDQUOT)

Report = Callable[[int], None]  # is told how many bytes there are by now


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def fetch(client: HubClient, repo: str, commit: str, file: RepoFile, partial: Path, report: Report) -> None:
    """Complete the partial file, which may hold the beginning already: then it is the file, and on the disk.

    SotolError if it can't be: the connection breaks again and again, the disk is full, the Hub refuses, or sends what
    it did not announce. What has come stays, to go on with, unless the whole has another hash than the Hub says.
    """
    address = client.file(repo, commit, file.path)
    with _opened(partial) as out:
        have, digest = _known(out, file, report)
        misses = 0
        while have < file.size:
            before = have
            try:
                wanted = {"range": f"bytes={have}-"} if have else {}
                with client.get(address, repo, wanted) as response:
                    if have and not _goes_on(response, have, file):
                        have, digest = _anew(out, file)
                    have = _receive(response, out, have, digest, file, report)
            except Unreachable as error:
                have = os.fstat(out.fileno()).st_size  # all of which was hashed
                misses = 0 if have > before else misses + 1
                if misses >= TRIES:
                    raise SotolError(f"{file.path}: {error}; pull it again to go on from {have} bytes") from error
                sleep(min(2.0**misses, LONGEST_PAUSE))
        if digest.hexdigest() != file.digest:
            out.truncate(0)
            raise SotolError(f"{file.path}: what came has another hash than the Hub says, and is gone: pull it again")
        os.fsync(out.fileno())


def _opened(partial: Path) -> FileIO:
    """The partial file, without a buffer: what is written counts, whenever the process ends."""
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    return FileIO(descriptor, "r+")


def _known(out: FileIO, file: RepoFile, report: Report) -> tuple[int, _Hash]:
    """How much is there already, and its hash so far."""
    if os.fstat(out.fileno()).st_size > file.size:
        return _anew(out, file)
    have, digest = 0, _hash(file)
    while piece := out.read(PIECE):
        digest.update(piece)
        have += len(piece)
        report(have)
    return have, digest


def _anew(out: FileIO, file: RepoFile) -> tuple[int, _Hash]:
    out.seek(0)
    out.truncate()
    return 0, _hash(file)


def _hash(file: RepoFile) -> _Hash:
    """The hash that the Hub tells of a file: SHA-256, or, of those that lie in Git itself, Git's of a blob."""
    if len(file.digest) == 64:
        return hashlib.sha256()
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % file.size)
    return digest


def _goes_on(response: Response, have: int, file: RepoFile) -> bool:
    """Whether the response is what is missing; False if it is the whole file. SotolError for another part."""
    if response.status_code == 200:  # the server knows no ranges
        return False
    said = response.headers.get("content-range", "")
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", said.strip())
    if response.status_code != 206 or found is None or int(found[1]) != have:
        raise SotolError(
            f"{file.path}: the Hub sends something else than was asked for: {plain(said, 60) or 'nothing'}"
        )
    if found[3] not in ("*", str(file.size)):
        raise SotolError(f"{file.path}: the Hub says {file.size} bytes, and has {found[3]}")
    return True


def _receive(response: Response, out: FileIO, have: int, digest: _Hash, file: RepoFile, report: Report) -> int:
    """Take the body; how much there is then. Unreachable if it ends too early."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise SotolError(f"{file.path}: the Hub sends it compressed, unasked")
    for chunk in response.iter_raw():
        if have + len(chunk) > file.size:
            raise SotolError(f"{file.path}: the Hub sends more than the {file.size} bytes that it announced")
        try:
            write_all(out, chunk)
        except OSError as error:
            if error.errno in FULL:
                with suppress(OSError):
                    out.truncate(have)
                raise SotolError(
                    f"{file.path}: the disk is full: free {file.size - have} bytes, and pull it again"
                ) from None
            raise
        digest.update(chunk)
        have += len(chunk)
        report(have)
    if have < file.size:
        raise Unreachable("the connection ended too early")
    return have


def write_all(out: FileIO, data: bytes) -> None:
    """Write all of it: a system may take a part."""
    view = memoryview(data)
    while view:
        view = view[out.write(view) :]
