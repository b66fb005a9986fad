"""Models by name."""

import re
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from sotol import catalog
from sotol.catalog import DEFAULT_MODEL, PACKAGED, Packaged, find_model
from sotol.errors import SotolError
from sotol.formats import read_gguf


def test_the_default_model_is_a_file_of_its_package() -> None:
    path = find_model(DEFAULT_MODEL)
    assert path.name == PACKAGED[DEFAULT_MODEL].file
    assert read_gguf(path).metadata["general.architecture"] == "llama"


def test_a_path_is_a_path(tmp_path: Path) -> None:
    file = tmp_path / "smollm2"
    file.touch()
    assert find_model(file) == find_model(str(file)) == file


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such.gguf", "no model 'no/such.gguf': give the path of a .gguf file, or one of smollm2"),
        ("smollm3", "no model 'smollm3'"),
        (".", ". is a folder: give the path of a .gguf file"),
        ("", "no model ''"),
        ("a\0b", "no model 'a\\x00b'"),
        ("x" * 5000, f"no model '{'x' * 199}: File name too long"),
    ],
)  # fmt: skip
def test_what_is_no_model(name: str, message: str) -> None:
    with pytest.raises(SotolError, match=re.escape(message)):
        find_model(name)


def test_a_package_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not installed, and installed without the file: how to get it."""
    monkeypatch.setitem(PACKAGED, "other", Packaged("no_such_package", "x.gguf", "pip install other"))
    monkeypatch.setitem(PACKAGED, "half", Packaged("json", "x.gguf", "pip install half"))
    for name in ("other", "half"):
        with pytest.raises(SotolError, match=f"the model '{name}' is not installed: get it with `pip install {name}`"):
            find_model(name)


def test_a_package_is_not_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its code may need what sotol does without."""
    package = tmp_path / "explosive"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "x.gguf").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(PACKAGED, "other", Packaged("explosive", "x.gguf", ""))
    assert find_model("other") == package / "x.gguf"


def test_a_package_that_is_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> Any:
        return ModuleSpec(name, None)

    monkeypatch.setattr(catalog, "find_spec", find_spec)
    with pytest.raises(SotolError, match="is not installed"):
        find_model(DEFAULT_MODEL)
