"""Which files of a repository are a model: GGUF files by encoding, split ones whole, or what a SafeTensors model needs.

The same rules say what of a repository is in the cache.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sotol.errors import FormatError, ModelNotFoundError, plain

__all__ = ["BESIDE", "Choice", "RepoFile", "choices", "choose", "safe_path"]

SAFETENSORS = "safetensors"  # the label of a model in SafeTensors files
# The encoding in a file's name, as llama.cpp's tools and those who use them write it; the last one counts.
ENCODING = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q\d{1,2}(?:_[A-Z0-9]{1,4}){0,3}|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|F16|FP16|F32|FP32))(?=[-._/]|$)",
    re.IGNORECASE,
)
SPLIT = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.(?P<kind>gguf|safetensors)", re.IGNORECASE)
# GGUF files that are no language models: towers for images and sounds, and statistics for quantising.
BESIDE = re.compile(r"(^|[-._/])(mmproj|imatrix)", re.IGNORECASE)
# Taken where nothing is said, the first that there is: of good quality for their size, then what is near to that.
PREFERRED = ("Q4_K_M", "UD-Q4_K_XL", "Q4_K_S", "Q4_K_L", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4", "MXFP4_MOE",
             "Q5_K_M", "Q5_K_S", "Q6_K", "Q8_0", "Q3_K_L", "Q3_K_M", "BF16", "F16", "FP16", "F32", "FP32")  # fmt: skip
# What `formats/checkpoint_folder.py` and the tokenizers read beside weights.
NEEDED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
          "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tekken.json",
          "chat_template.jinja", "chat_template.json", "model.safetensors.index.json")  # fmt: skip


class RepoFile(NamedTuple):
    """A file of a repository. digest: SHA-256 of what lies in large storage, else Git's SHA-1 of the blob; hex."""

    path: str
    size: int = 0
    digest: str = ""


class Choice(NamedTuple):
    """A model of a repository. label: its encoding, "safetensors", or the file's name where it says neither.

    main: the path to load, "" for the folder itself.
    """

    label: str
    main: str
    files: tuple[RepoFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def choices(files: Iterable[RepoFile]) -> list[Choice]:
    """All models in a repository, whose files are all there: GGUF files by name, then the one in SafeTensors files."""
    listed = sorted(files)
    found = _ggufs([file for file in listed if file.path.casefold().endswith(".gguf")])
    labels = Counter(choice.label.casefold() for choice in found)
    named = [c if labels[c.label.casefold()] == 1 else c._replace(label=c.main) for c in found]
    return named + _safetensors([file for file in listed if "/" not in file.path])


def choose(found: Sequence[Choice], wanted: str, name: str) -> Choice:
    """The choice that an encoding, in any case, or a file's name means; of "" the best for most.

    ModelNotFoundError tells what there is. name: of the repository, for messages.
    """
    if not found:
        raise ModelNotFoundError(f"{name} has no model that sotol could load: no GGUF file, no SafeTensors files")
    if not wanted:
        rank = {label.casefold(): number for number, label in enumerate(PREFERRED)}
        return min(found, key=lambda choice: rank.get(choice.label.casefold(), len(rank)))
    text = wanted.casefold()
    for matches in (
        [c for c in found if text in (c.label.casefold(), c.main.casefold())],
        [c for c in found if any(text == file.path.casefold() for file in c.files)],
        [c for c in found if text in _names(c.main.casefold())],
        [c for c in found if c.main and text in (m.casefold() for m in ENCODING.findall(c.main))],
        [c for c in found if f"ud-{text}" == c.label.casefold()],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ModelNotFoundError(f"{name} has {_listed(matches)} as {plain(wanted, 80)}: name one")
    raise ModelNotFoundError(f"{name} has no {plain(wanted, 80)}: it has {_listed(found)}")


def safe_path(path: str) -> str:
    """A path that lies below whatever folder it is put in, on all systems; FormatError for any other."""
    parts = path.split("/")
    bad = any(part in ("", ".", "..") or len(part.encode(errors="replace")) > 255 for part in parts)
    if bad or len(path) > 1024 or not path.isprintable() or any(mark in path for mark in '\\:*?"<>|'):
        raise FormatError(f"the Hub names the file {plain(repr(path), 80)}, which can't be a file of a repository")
    return path


def _ggufs(files: Sequence[RepoFile]) -> list[Choice]:
    groups: dict[tuple[str, int], list[RepoFile]] = {}
    for file in files:
        if BESIDE.search(file.path):
            continue
        part = SPLIT.fullmatch(file.path)
        groups.setdefault((part["stem"], int(part["count"])) if part else (file.path, 1), []).append(file)
    found = []
    for (stem, count), parts in groups.items():
        if len(parts) == count:  # a set that lacks some is none
            base = stem if SPLIT.fullmatch(parts[0].path) else stem[: -len(".gguf")]
            encodings = ENCODING.findall(base)
            label = encodings[-1].upper() if encodings else base.rpartition("/")[2]
            found.append(Choice(label, parts[0].path, tuple(parts)))
    return found


def _safetensors(files: Sequence[RepoFile]) -> list[Choice]:
    """The model in the repository's own folder, as `formats/safetensors.py` would find its weights."""
    by_name = {file.path: file for file in files}
    weights = [name for name in by_name if name.endswith(".safetensors")]
    if "model.safetensors" in by_name:
        chosen = ["model.safetensors"]
    else:
        sets: dict[tuple[str, int], list[str]] = {}
        for name in weights:
            if part := SPLIT.fullmatch(name):
                sets.setdefault((part["stem"], int(part["count"])), []).append(name)
        whole = sorted((stem != "model", stem, names) for (stem, count), names in sets.items() if len(names) == count)
        chosen = whole[0][2] if whole else weights if len(weights) == 1 and not sets else []
    if not chosen or "config.json" not in by_name:
        return []
    needed = [by_name[name] for name in (*NEEDED, *chosen) if name in by_name]
    return [Choice(SAFETENSORS, "", tuple(needed))]


def _names(main: str) -> tuple[str, ...]:
    """What else a file may be called: without its folder, without .gguf."""
    name = main.rpartition("/")[2]
    stem = name.removesuffix(".gguf")
    return name, stem, re.sub(r"-\d{5}-of-\d{5}$", "", stem)


def _listed(found: Sequence[Choice]) -> str:
    names = [plain(choice.label, 80) for choice in found]
    return ", ".join(names[:24]) + (f" and {len(names) - 24} more" if len(names) > 24 else "")
