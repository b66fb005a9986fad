"""Names of the user's own for models: a TOML file in the user's configuration folder, a line for each.

    small = "bartowski/SmolLM2-1.7B-Instruct-GGUF:Q4_K_M"
    "my model" = "~/models/mine.gguf"

`sotol alias` writes it; what people write into it, comments too, stays.
"""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

import platformdirs

from sotol.errors import FormatError, SotolError, plain

__all__ = ["aliases", "aliases_path", "set_alias", "target_of"]


def aliases_path() -> Path:
    """The file, whether it is there or not."""
    return Path(platformdirs.user_config_dir("sotol")) / "aliases.toml"


def aliases() -> dict[str, str]:
    """All aliases, each with the name or path that it stands for; FormatError for a file that is not as above."""
    path = aliases_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SotolError(f"{plain(path)} can't be read: {plain(error)}") from None
    return _parsed(text, path)


def target_of(name: str) -> str | None:
    """What an alias, in any case, stands for; None if it is none."""
    known = {alias.casefold(): target for alias, target in aliases().items()}
    return known.get(name.casefold())


def set_alias(name: str, target: str | None) -> None:
    """Let a name stand for a model, or, None, for nothing any more.

    ValueError for a name that could be a path or a name of the Hub's, SotolError if the file can't be written.
    """
    if not name or name != name.strip() or plain(name, 80) != name or any(mark in name for mark in "/\\:@"):
        raise ValueError(f"{plain(repr(name), 80)} can't be an alias: give a short name without / \\ : @")
    path, before = aliases_path(), aliases()
    same = [alias for alias in before if alias.casefold() == name.casefold()]
    wanted = {alias: old for alias, old in before.items() if alias not in same}
    text = path.read_text(encoding="utf-8") if before else ""
    for alias in same:
        key = f"{re.escape(alias)}|{re.escape(json.dumps(alias, ensure_ascii=False))}"
        text = re.sub(rf"(?m)^[ \t]*(?:{key})[ \t]*=.*\n?", "", text)
    if target is not None:
        wanted[name] = target
        text = text and text.removesuffix("\n") + "\n"
        text += _line(name, target)
    with suppress(FormatError):
        if _parsed(text, path) == wanted:
            _write(path, text)
            return
    _write(path, "".join(_line(*pair) for pair in wanted.items()))  # it was written in a form that lines do not show


def _line(name: str, target: str) -> str:
    return f"{json.dumps(name, ensure_ascii=False)} = {json.dumps(target, ensure_ascii=False)}\n"


def _parsed(text: str, path: Path) -> dict[str, str]:
    import tomllib  # noqa: PLC0415  (where there are no aliases, and for help, nothing is parsed)

    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FormatError(f"{plain(path)}: {plain(error)}") from None
    for name, target in found.items():
        if not isinstance(target, str) or not target:
            raise FormatError(f'{plain(path)}: {plain(name)} is no name or path: write {plain(name)} = "ORG/REPO"')
    return found


def _write(path: Path, text: str) -> None:
    made = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(text, encoding="utf-8")
        made.replace(path)
    except OSError as error:
        raise SotolError(f"{plain(path)} can't be written: {str(error.strerror).lower()}") from None
    finally:
        with suppress(OSError):
            made.unlink()
