"""What a server is to offer: models by name, a folder of them, or a TOML file that says more of each.

[[models]]
name = "small"                     # for clients
path = "smollm2"                   # a path, or any name of a model
aliases = ["gpt-4o-mini"]          # optional, as all that follows
keep_alive = "10m"                 # how long it stays without being used; -1: for ever
options = { ctx = 2048, threads = 2 }
sampling = { temperature = 0.2 }
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotol.catalog import find_model
from sotol.errors import FormatError, SotolError, plain
from sotol.hub.choosing import BESIDE
from sotol.server.times import seconds_of

if TYPE_CHECKING:
    from sotol.llm import LLM
    from sotol.progress import Progress
    from sotol.server.models import Offered

__all__ = ["Entry", "models_in", "offer", "read_models"]

FIELDS = ("name", "path", "aliases", "keep_alive", "options", "sampling")
MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model to offer. options: of `LoadOptions`, beside those that hold for all. sampling: of `Sampling`."""

    name: str
    path: str
    aliases: tuple[str, ...] = ()
    keep_alive: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)


def offer(entry: Entry, options: Mapping[str, Any], sampling: Mapping[str, Any] | None = None) -> "Offered":
    """The model of an entry, to be loaded when somebody asks for it. options, sampling: what holds for all.

    Looks for the model and at the options now. ModelNotFoundError, SotolError as of `find_model`; ValueError and
    TypeError for options that there are not.
    """
    from sotol.load_options import LoadOptions  # noqa: PLC0415  (commands other than `serve` do without)
    from sotol.server.models import Offered  # noqa: PLC0415

    settings = {**options, **entry.options}
    chosen, path = LoadOptions.of(settings), find_model(entry.path)

    def load(progress: "Progress") -> "LLM":
        from sotol.llm import LLM  # noqa: PLC0415  (in the thread that loads)

        return LLM(path, progress=progress, **settings)

    def size() -> int:
        from sotol.loading import memory_of  # noqa: PLC0415  (as above)

        return memory_of(path, chosen)

    said = {name: value for name, value in (sampling or {}).items() if value is not None}
    return Offered(entry.name, load, size, path, entry.aliases, {**said, **entry.sampling}, entry.keep_alive)


def models_in(folder: Path) -> dict[str, str]:
    """The models in a folder, each with its path: GGUF files, split ones once, and folders with config.json.

    What by its name lies beside models is left out: importance matrices, and towers for images.

    SotolError if there are none.
    """
    found: dict[str, str] = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                if (path / "config.json").exists():
                    found[path.name] = str(path)
            elif path.suffix.casefold() == ".gguf" and not BESIDE.search(path.name):
                stem, part, count = path.stem.rpartition("-00001-of-")
                if part and count.isdecimal():
                    found[stem] = str(path)
                elif not _is_later_part(path.stem):
                    found[path.stem] = str(path)
    except OSError as error:
        raise SotolError(f"{plain(folder)}: {str(error.strerror).lower()}") from None
    if not found:
        raise SotolError(f"{plain(folder)} has no model: no .gguf file, and no folder with config.json")
    return found


def _is_later_part(stem: str) -> bool:
    before, _, count = stem.rpartition("-of-")
    return bool(before) and count.isdecimal() and len(count) == 5 and before[-6:-5] == "-" and before[-5:].isdecimal()


def read_models(path: Path) -> list[Entry]:
    """The entries of a TOML file. FormatError names the entry and the field that is wrong."""
    import tomllib  # noqa: PLC0415  (most servers have no such file)

    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise FormatError(f"{plain(path)}: has more than {MOST_BYTES >> 20} MiB: it is no list of models")
        found = tomllib.loads(data.decode())
    except OSError as error:
        raise SotolError(f"{plain(path)}: {str(error.strerror).lower()}") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise FormatError(f"{plain(path)}: {plain(error)}") from None
    listed = found.pop("models", None)
    if found or not isinstance(listed, list) or not listed:
        raise FormatError(f"{plain(path)}: it must have [[models]], each with name and path, and nothing else")
    return [_entry(path, number, given) for number, given in enumerate(listed)]


def _entry(file: Path, number: int, given: object) -> Entry:
    where = f"{plain(file)}: models[{number}]"
    if not isinstance(given, dict):
        raise FormatError(f"{where} is no table: write [[models]]")
    for key in given:
        if key not in FIELDS:
            raise FormatError(f"{where} has {plain(key)}: it may have {', '.join(FIELDS)}")
    path = given.get("path")
    name = given.get("name", Path(path).name.removesuffix(".gguf") if isinstance(path, str) else None)
    for key, value in (("path", path), ("name", name)):
        if not isinstance(value, str) or not value:
            raise FormatError(f"{where}.{key} must be a text")
    keep = given.get("keep_alive")
    seconds = None if isinstance(keep, bool) or not isinstance(keep, str | int | float) else seconds_of(keep)
    if keep is not None and seconds is None:
        raise FormatError(f'{where}.keep_alive must be seconds, or a time as "5m"')
    for key in ("options", "sampling"):
        if not isinstance(given.get(key, {}), dict):
            raise FormatError(f"{where}.{key} must be a table, as {{ ctx = 2048 }}")
    beside = file.parent / os.path.expanduser(path)  # type: ignore[arg-type]  # noqa: PTH111  (as in the catalog)
    there = str(beside) if beside.exists() else str(path)
    return Entry(
        name=str(name),
        path=there,
        aliases=_texts(f"{where}.aliases", given.get("aliases", [])),
        keep_alive=seconds,
        options=given.get("options", {}),
        sampling=given.get("sampling", {}),
    )


def _texts(where: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(text, str) for text in value):
        raise FormatError(f'{where} must be a list of texts, as ["gpt-4o-mini"]')
    return tuple(value)
