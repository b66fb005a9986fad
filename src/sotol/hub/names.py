"""Names of models on the Hub, as people paste them: `ORG/REPO:Q4_K_M`, `hf:…`, `hf.co/…`, a page's address."""

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from sotol.errors import plain
from sotol.hub.places import HUB

__all__ = ["HubName", "checked_revision", "parse_name"]

PREFIXES = ("hf://", "hf:", "hf.co/", "huggingface.co/")
HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
PART = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"
NAME = re.compile(rf"(?P<repo>{PART}/{PART})(?:@(?P<revision>[^:@]+))?(?P<rest>:.*)?", re.ASCII)
# Of huggingface_hub's file system, behind hf://; / is %2F in a revision there.
PATH = re.compile(rf"(?P<repo>{PART}/{PART})(?:@(?P<revision>[^:@/]+))?(?P<rest>[:/].*)?", re.ASCII)
REVISION = re.compile(r"[A-Za-z0-9_](?:[\w./-]{0,254}[\w-])?", re.ASCII)
FILES = (".gguf", ".safetensors")  # a bare name that ends so is a path


class HubName(NamedTuple):
    """A model of the Hub. choice: an encoding, or a file of the repository; "": the default.

    revision: a branch, a tag or a commit; None is the main branch, or, in the cache, whatever there is.
    """

    repo: str
    choice: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        at = "" if self.revision is None else f"@{self.revision}"
        return f"{self.repo}{at}{self.choice and ':' + self.choice}"


def parse_name(text: str, endpoint: str = HUB) -> HubName | None:
    """The model that a text names; None for what is no name of the Hub's, as paths are.

    ValueError for what begins as one and is none.
    """
    if "://" in text and not text.startswith("hf://"):
        return _of_address(text, endpoint)
    prefix = next((prefix for prefix in PREFIXES if text.casefold().startswith(prefix)), "")
    bare = text[len(prefix) :]
    found = (PATH if prefix == "hf://" else NAME).fullmatch(bare)
    repo, rest = (found["repo"], found["rest"] or "") if found else ("", "")
    if found is None or ".." in repo or "--" in repo:
        if prefix:
            raise ValueError(f"{plain(repr(text))} is no name of a model: it must be as {prefix}ORG/REPO:Q4_K_M")
        return None
    if not prefix and repo.endswith(FILES):
        return None
    if rest in (":", "/"):
        raise ValueError(f"{plain(repr(text))} ends in {rest!r}: an encoding or a file of the repository goes there")
    revision = found["revision"]
    return HubName(repo, rest[1:], None if revision is None else checked_revision(unquote(revision)))


def checked_revision(text: str) -> str:
    """A branch, a tag or a commit; ValueError for what can't be one, or would lead out of the cache as a path."""
    if not REVISION.fullmatch(text) or ".." in text or "//" in text or "/." in text:
        raise ValueError(f"{plain(repr(text))} is no revision: give a branch, a tag or a commit")
    return text


def _of_address(text: str, endpoint: str) -> HubName | None:
    """The model of a page's address: ORG/REPO, or ORG/REPO/blob/REVISION/FILE."""
    try:
        parts, known = urlsplit(text), {*HOSTS, urlsplit(endpoint).hostname}
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or host not in known:
        return None
    names = [unquote(name) for name in parts.path.split("/") if name]
    repo = "/".join(names[:2])
    if not re.fullmatch(f"{PART}/{PART}", repo, re.ASCII) or ".." in repo or "--" in repo:
        raise ValueError(f"{plain(repr(text))} is no page of a model: it must be as {endpoint}/ORG/REPO")
    if len(names) <= 3 or names[2] not in ("blob", "resolve", "raw", "tree"):
        return HubName(repo)
    revision = checked_revision(names[3])
    return HubName(repo, "/".join(names[4:]), None if revision == "main" else revision)
