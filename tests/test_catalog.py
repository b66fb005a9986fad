"""Models by name."""

import os
import re
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from sotol import catalog
from sotol.catalog import DEFAULT_MODEL, PACKAGED, Packaged, default_model, find_model, installed
from sotol.errors import ModelNotFoundError, SotolError
from sotol.formats import read_gguf


def test_the_default_model_is_a_file_of_its_package() -> None:
    path = find_model(DEFAULT_MODEL)
    assert path.name == PACKAGED[DEFAULT_MODEL].file
    assert read_gguf(path).metadata["general.architecture"] == "llama"


def test_a_path_is_a_path(tmp_path: Path) -> None:
    file = tmp_path / "smollm2"
    file.touch()
    assert find_model(file) == find_model(str(file)) == file


@pytest.mark.parametrize("name", ["SmolLM2", "SMOLLM2", None, b"smollm2", Path("smollm2")])
def test_names_in_any_case(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOTOL_MODEL", raising=False)
    assert find_model(name).name == PACKAGED["smollm2"].file


def test_what_a_shell_would_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", "models")
    file = tmp_path / "models" / "$x.gguf"
    file.parent.mkdir()
    file.touch()
    assert find_model("~/models/$x.gguf") == find_model("~/$WHERE/$x.gguf") == find_model("$HOME/models/$x.gguf")
    assert find_model("~/$WHERE/$x.gguf") == file
    monkeypatch.chdir(file.parent)
    monkeypatch.setenv("x", "y")
    assert find_model("$x.gguf") == Path("$x.gguf")  # an existing file takes precedence


def test_the_default_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTOL_MODEL", "")
    assert default_model() == DEFAULT_MODEL
    (tmp_path / "mine.gguf").touch()
    monkeypatch.setenv("SOTOL_MODEL", str(tmp_path / "mine.gguf"))
    assert find_model() == tmp_path / "mine.gguf"
    monkeypatch.setenv("SOTOL_MODEL", "nowhere")
    with pytest.raises(ModelNotFoundError, match=re.escape("no model 'nowhere' (SOTOL_MODEL): give")):
        find_model()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such.gguf", "no model 'no/such.gguf': give the path of a .gguf file, or one of smollm2"),
        ("smolm2", "no model 'smolm2': did you mean smollm2? give the path of a .gguf file, or one of smollm2"),
        ("smollm3", "no model 'smollm3': did you mean smollm2?"),
        ("", "no model ''"),
        ("a\0b", "no model 'a\\x00b'"),
        ("\udcff", "no model '\\udcff'"),
        ("~nobody/x", "no model '~nobody/x'"),
    ],
)
def test_what_is_no_model(name: str, message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=re.escape(message)) as error:
        find_model(name)
    assert isinstance(error.value, FileNotFoundError)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", ". is a folder: give the path of a .gguf file"),
        ("x" * 5000, f"no model '{'x' * 198}…: file name too long"),
        ("https://example.org/x.gguf", "no model 'https://example.org/x.gguf': sotol reads files and fetches none"),
    ],
)
def test_what_is_no_file(name: str, message: str) -> None:
    with pytest.raises(SotolError, match=re.escape(message)) as error:
        find_model(name)
    assert not isinstance(error.value, FileNotFoundError)


def test_a_folder_that_is_no_models(tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(SotolError) as error:
            find_model(tmp_path)
        return str(error.value)

    (tmp_path / "adapter_config.json").touch()
    assert said().startswith(f"{tmp_path} is a folder with an adapter (LoRA) for another model: merge it")
    files = [tmp_path / f"{name}.gguf" for name in "abcd"]
    for file in files[:2]:
        file.touch()
    assert said() == f"{tmp_path} is a folder: give the path of one of its files: {files[0]} or {files[1]}"
    for file in files:
        file.touch()
    assert said().endswith(f"{files[1]} or {files[2]} or one of 1 more")


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="this system has no links")
def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    for name, target in (("a.gguf", "none.gguf"), ("loop.gguf", "loop.gguf")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(ModelNotFoundError, match=rf"{name} is a link to {target}, which is not there"):
            find_model(tmp_path / name)


@pytest.mark.parametrize("name", [3, ["smollm2"], object()])
def test_what_is_no_name(name: Any) -> None:
    with pytest.raises(ValueError, match="it must be a name, or the path"):
        find_model(name)


def test_files_that_somebody_may_have_meant(tmp_path: Path) -> None:
    (tmp_path / "Llama-3.2-1B.Q4_K_M.gguf").touch()
    with pytest.raises(ModelNotFoundError, match=re.escape(f"did you mean {tmp_path / 'Llama-3.2-1B.Q4_K_M.gguf'}?")):
        find_model(tmp_path / "llama-3.2-1b.Q4_K_S.gguf")


def test_what_has_only_the_suffix_in_common_is_not_meant(tmp_path: Path) -> None:
    (tmp_path / "im.gguf").touch()
    with pytest.raises(ModelNotFoundError, match=r"no model '.*nix\.gguf': give the path"):
        find_model(tmp_path / "nix.gguf")


def test_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGED, "other", Packaged("no_such_package", "x.gguf", "pip install other"))
    assert installed() == {"smollm2": find_model("smollm2")}


def test_a_package_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not installed, or installed without the file: the error says how to install it."""
    monkeypatch.setitem(PACKAGED, "other", Packaged("no_such_package", "x.gguf", "pip install other"))
    monkeypatch.setitem(PACKAGED, "half", Packaged("json", "x.gguf", "pip install half"))
    for name in ("other", "half"):
        with pytest.raises(SotolError, match=f"the model '{name}' is not installed: get it with `pip install {name}`"):
            find_model(name)


def test_a_package_is_not_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its code may import packages that sotol does not need."""
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


def test_a_folder_with_a_model(tmp_path: Path) -> None:
    with pytest.raises(SotolError, match=r"or of a folder with config\.json and \.safetensors files"):
        find_model(tmp_path)
    (tmp_path / "config.json").touch()
    assert find_model(tmp_path) == tmp_path
