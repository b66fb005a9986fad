"""The cache of what was pulled, in `huggingface_hub`'s layout, which it shares with everything that uses that.

    models--ORG--REPO/blobs/<hash>             the files, each once
                      snapshots/<commit>/…     links to them by their names in the repository
                      refs/<revision>          which commit that is

https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sotol.errors import ModelNotFoundError, explained
from sotol.hub.choosing import Choice, RepoFile, choices, choose
from sotol.hub.names import HubName

__all__ = ["Pulled", "find_pulled", "pulled", "remove", "repo_folder", "revision_of"]

MAIN = "main"


class Pulled(NamedTuple):
    """A model that is in the cache, whole. path: what to load. bytes: of its files. used: when one was last read."""

    repo: str
    label: str
    commit: str
    path: Path
    files: tuple[Path, ...]
    bytes: int
    used: float

    @property
    def name(self) -> str:
        """By which it is found."""
        return self.repo if self.path.is_dir() else f"{self.repo}:{self.label}"


def repo_folder(cache: Path, repo: str) -> Path:
    """The folder of a repository."""
    return cache / f"models--{repo.replace('/', '--')}"


def revision_of(folder: Path, revision: str) -> str:
    """The commit of a branch or a tag, as of when it was pulled; what is none of those is a commit itself."""
    with suppress(OSError):
        return (folder / "refs" / revision).read_text().strip()
    return revision


def pulled(cache: Path) -> list[Pulled]:
    """All models in the cache, by name; of one that is in several snapshots the one that its name finds."""
    found: dict[str, Pulled] = {}
    with explained(f"looking at {cache}"):
        for folder in sorted(cache.glob("models--*--*")):
            repo = folder.name.removeprefix("models--").replace("--", "/")
            for snapshot in _snapshots(folder):
                for choice in _choices(snapshot):
                    model = _pulled(repo, snapshot, choice)
                    found.setdefault(model.name, model)
    return sorted(found.values(), key=lambda model: model.name.casefold())


def find_pulled(cache: Path, name: HubName) -> Pulled | None:
    """The model of a name, None if it was not pulled; ModelNotFoundError if only other choices of it were.

    Without a revision the main branch's, as of when it was pulled, else the latest snapshot that has it.
    """
    folder = repo_folder(cache, name.repo)
    wanted: ModelNotFoundError | None = None
    with explained(f"looking at {folder}"):
        if name.revision is None:
            snapshots = list(_snapshots(folder))
        else:
            snapshots = [folder / "snapshots" / revision_of(folder, name.revision)]
        for snapshot in snapshots:
            if not (found := _choices(snapshot)):
                continue
            try:
                return _pulled(name.repo, snapshot, choose(found, name.choice, f"{name.repo} in the cache"))
            except ModelNotFoundError as error:
                wanted = wanted or error
    if wanted is not None:
        raise wanted
    return None


def remove(cache: Path, model: Pulled) -> int:
    """Remove a model from the cache: its links in all snapshots, and the files that nothing else links to.

    Bytes that this freed. What else is in the repository's folder stays; if nothing is, the folder goes. SotolError if
    the files can't be removed.
    """
    folder = repo_folder(cache, model.repo)
    snapshot = folder / "snapshots" / model.commit
    names = {path.relative_to(snapshot) for path in model.files}
    freed = 0
    with explained(f"removing {model.name}"):
        links = {link: _target(link) for link in (folder / "snapshots").glob("**/*") if not link.is_dir()}
        gone = {link for link in links if Path(*link.relative_to(folder / "snapshots").parts[1:]) in names}
        kept = {blob for link, blob in links.items() if link not in gone}
        for link in gone:
            blob = links[link]
            if blob != link:
                link.unlink()
            if blob == link or (blob not in kept and blob.parent == folder / "blobs"):
                with suppress(FileNotFoundError):  # it is missing, or two names of one file go
                    size = blob.lstat().st_size
                    blob.unlink()
                    freed += size
        for path in sorted((folder / "snapshots").glob("**/"), reverse=True):
            if path != folder / "snapshots" and not any(path.iterdir()):
                path.rmdir()
        _forget_commits(folder)
        if not any((folder / "snapshots").iterdir()):
            shutil.rmtree(folder)
            shutil.rmtree(cache / ".locks" / folder.name, ignore_errors=True)
    return freed


def _forget_commits(folder: Path) -> None:
    """Remove references to commits that are no more: `huggingface_hub` calls a cache with those damaged."""
    for ref in [path for path in (folder / "refs").glob("**/*") if path.is_file()]:
        if not (folder / "snapshots" / ref.read_text().strip()).is_dir():
            ref.unlink()


def _snapshots(folder: Path) -> Iterator[Path]:
    """The snapshots of a repository: that of the main branch, then the latest first."""
    main = folder / "snapshots" / revision_of(folder, MAIN)
    others = [path for path in (folder / "snapshots").glob("*") if path.is_dir() and path != main]
    if main.is_dir():
        yield main
    yield from sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)


def _choices(snapshot: Path) -> list[Choice]:
    """The models in a snapshot that are whole: a link whose file is not there is none."""
    if not snapshot.is_dir():
        return []
    paths = [path for path in snapshot.glob("**/*") if path.is_file()]
    return choices(RepoFile(path.relative_to(snapshot).as_posix()) for path in paths)


def _pulled(repo: str, snapshot: Path, choice: Choice) -> Pulled:
    files = tuple(snapshot / file.path for file in choice.files)
    stats = [path.stat() for path in files]
    size, used = sum(stat.st_size for stat in stats), max(stat.st_atime for stat in stats)
    return Pulled(repo, choice.label, snapshot.name, snapshot / choice.main, files, size, used)


def _target(link: Path) -> Path:
    """What a link of a snapshot leads to: one step, since a blob may itself be a link to a store of several caches."""
    if not link.is_symlink():
        return link
    return Path(os.path.normpath(link.parent / link.readlink()))
