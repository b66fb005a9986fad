"""Pulling: a name becomes files in the cache, whole and checked, or an error; what was begun is gone on with."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from sotol.errors import FormatError, SotolError, explained, plain
from sotol.hub.cache import MAIN, Pulled, find_pulled, repo_folder
from sotol.hub.choosing import Choice, RepoFile, choices, choose, safe_path
from sotol.hub.client import HubClient, Unreachable
from sotol.hub.names import HubName, parse_name
from sotol.hub.places import Places, places
from sotol.hub.transfer import fetch
from sotol.progress import Progress

__all__ = ["Listing", "available", "pull"]

COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
MOST_FILES = 100_000
BLOCK = 4096  # bytes by which a disk gives room
PATIENCE = 1.0  # seconds of waiting for another process until a person is told

Note = Callable[[str], None]


class Listing(NamedTuple):
    """A repository at a revision: its commit, and the models in it."""

    commit: str
    choices: list[Choice]


def available(name: HubName | str, *, token: str | None = None) -> Listing:
    """What models a repository has. Errors as of `pull`."""
    asked, where = _named(name), places()
    _refuse_offline(asked, where)
    return _listing(HubClient(where.endpoint, token), asked)


def pull(
    name: HubName | str, *, token: str | None = None, progress: Progress | None = None, note: Note | None = None
) -> Pulled:
    """Fetch a model that is not in the cache yet, or bring what is there up to its revision.

    progress: is called with a file's name, how many of its bytes there are, and how many it has. note: is told what a
    person may want to know, a sentence at a time. Offline, what is in the cache has to do.

    Raises ValueError for what is no name; SotolError, also ModelNotFoundError, for what the Hub does not have or does
    not give, a full disk, or a connection that breaks again and again. Whatever happens, the cache has no model that is
    not whole; a later call goes on with what came.
    """
    asked, where = _named(name), places()
    if where.offline and (there := find_pulled(where.cache, asked)) is not None:
        return there
    _refuse_offline(asked, where)
    client = HubClient(where.endpoint, token)
    listing = _listing(client, asked)
    chosen = choose(listing.choices, asked.choice, asked.repo)
    if note is not None and not asked.choice and len(listing.choices) > 1:
        others = ", ".join(plain(choice.label, 60) for choice in listing.choices if choice is not chosen)
        note(f"{asked.repo}: {plain(chosen.label, 60)} is taken; there are also {others}")
    folder = repo_folder(where.cache, asked.repo)
    with explained(f"pulling {asked}"):
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        (folder / "snapshots").mkdir(exist_ok=True)
        _check_room(folder, chosen)
        for file in chosen.files:
            _bring(client, asked, listing.commit, file, folder, progress, note)
        if (revision := asked.revision or MAIN) != listing.commit:
            _write(folder / "refs" / revision, listing.commit)
    found = find_pulled(where.cache, HubName(asked.repo, chosen.main or chosen.label, listing.commit))
    if found is None:  # somebody removed it just now
        raise SotolError(f"{asked} was removed while it was pulled: pull it again")
    return found


def _named(name: HubName | str) -> HubName:
    text = f"hf:{name}" if isinstance(name, HubName) else name  # what is made by hand is checked, too
    found = parse_name(text, places().endpoint)
    if found is None:
        raise ValueError(f"{plain(repr(name))} is no name of a model: it must be as ORG/REPO, or ORG/REPO:Q4_K_M")
    return found


def _refuse_offline(asked: HubName, where: Places) -> None:
    if where.offline:
        raise SotolError(f"{asked} is not in the cache, and HF_HUB_OFFLINE says to stay offline")


def _listing(client: HubClient, asked: HubName) -> Listing:
    """What the Hub says of a repository. What it says is looked at before it is believed."""
    revision = asked.revision or MAIN
    about = asked.repo if asked.revision is None else f"{asked.repo}@{asked.revision}"
    try:
        said = client.json(f"models/{asked.repo}/revision/{quote(revision, safe='')}?blobs=true", about)
    except Unreachable as error:
        raise SotolError(f"{client.endpoint} can't be reached: {error}") from error
    commit, siblings = (said.get("sha"), said.get("siblings")) if isinstance(said, dict) else (None, None)
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit) or not isinstance(siblings, list):
        raise SotolError(f"{client.endpoint} does not speak the Hub's API: it names no commit or no files of {about}")
    if len(siblings) > MOST_FILES:
        raise SotolError(f"{about} has {len(siblings)} files; sotol looks through up to {MOST_FILES}")
    files = [found for sibling in siblings if (found := _file(sibling)) is not None]
    return Listing(commit, choices(files))


def _file(said: Any) -> RepoFile | None:
    """A file of the Hub's answer; None for what is none."""
    if not isinstance(said, dict) or not isinstance(path := said.get("rfilename"), str):
        return None
    large = said.get("lfs")
    told = large if isinstance(large, dict) else {"size": said.get("size"), "sha256": said.get("blobId")}
    size, digest = told.get("size"), told.get("sha256")
    size = size if isinstance(size, int) and not isinstance(size, bool) else -1
    return RepoFile(path, size, digest if isinstance(digest, str) else "")


def _check_room(folder: Path, chosen: Choice) -> None:
    """FormatError for a file that can't be one, SotolError if the disk has no room for all that is missing."""
    needed = 0
    for file in chosen.files:
        safe_path(file.path)
        if file.size < 0 or not DIGEST.fullmatch(file.digest):
            raise FormatError(f"the Hub tells no size or hash of {plain(file.path)}: it could not be checked")
        blob = folder / "blobs" / file.digest
        for there in (blob, _partial(blob)):
            with suppress(FileNotFoundError):
                needed -= min(there.stat().st_size, file.size)
                break
        needed += file.size + BLOCK
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SotolError(f"{needed} bytes are to come, and the disk of {folder.parent} has {free} free: free some")


def _bring(
    client: HubClient, asked: HubName, commit: str, file: RepoFile, folder: Path,
    progress: Progress | None, note: Note | None,
) -> None:  # fmt: skip
    """See to it that a file is in the cache, under its hash and, for this commit, under its name."""
    blob = folder / "blobs" / file.digest

    def report(done: int) -> None:
        if progress is not None:
            progress(file.path, done, file.size)

    with _alone(folder, file.digest, lambda: note and note(f"{file.path}: another process is pulling it: waiting")):
        if not blob.is_file() or blob.stat().st_size != file.size:
            fetch(client, asked.repo, commit, file, _partial(blob), report)
            _partial(blob).replace(blob)
    report(file.size)
    _link(folder / "snapshots" / commit / Path(*file.path.split("/")), blob)


def _partial(blob: Path) -> Path:
    return blob.with_name(blob.name + ".incomplete")


@contextmanager
def _alone(folder: Path, digest: str, waiting: Callable[[], object]) -> Iterator[None]:
    """Nobody else pulls this file meanwhile, nor does `huggingface_hub`, whose lock it is.

    waiting: is called if that takes long.
    """
    from filelock import FileLock, SoftFileLock, Timeout  # noqa: PLC0415  (`HubClient` has found huggingface_hub)

    path = folder.parent / ".locks" / folder.name / f"{digest}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock: FileLock | SoftFileLock = FileLock(path, mode=0o664)
    try:
        try:
            lock.acquire(timeout=PATIENCE)
        except NotImplementedError:  # a file system without locks
            lock = SoftFileLock(path)
            lock.acquire(timeout=PATIENCE)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _link(link: Path, blob: Path) -> None:
    """A link to a blob by a file's name, in one step; a copy where the system has no links."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and link.resolve() == blob.resolve():
        return
    made = link.with_name(f".{os.getpid()}.{blob.name[:16]}.tmp")
    with suppress(FileNotFoundError):
        made.unlink()
    try:
        made.symlink_to(os.path.relpath(blob, link.parent))
    except (OSError, NotImplementedError):  # Windows, unless it is told to allow them
        shutil.copyfile(blob, made)
    made.replace(link)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{os.getpid()}.tmp")
    made.write_text(text)
    made.replace(path)
