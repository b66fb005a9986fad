"""The user's own names for models."""

from pathlib import Path

import platformdirs
import pytest

from sotol.aliases import aliases, aliases_path, set_alias, target_of
from sotol.catalog import find_model
from sotol.errors import FormatError, ModelNotFoundError, SotolError


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda _: str(tmp_path / "config"))


def test_names_for_models(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.touch()
    assert aliases() == {}
    set_alias("my model", str(file))
    set_alias("Small", "smollm2")
    assert aliases() == {"my model": str(file), "Small": "smollm2"}
    assert (target_of("SMALL"), target_of("other")) == ("smollm2", None)
    assert find_model("MY MODEL") == file
    assert find_model("small") == find_model("smollm2")
    set_alias("small", "other")
    assert aliases() == {"my model": str(file), "small": "other"}
    set_alias("my model", None)
    assert aliases() == {"small": "other"}
    with pytest.raises(ModelNotFoundError, match="the alias 'small' is 'other': give the path"):
        find_model("small")


def test_an_alias_is_no_alias_of_another() -> None:
    set_alias("a", "b")
    set_alias("b", "smollm2")
    with pytest.raises(ModelNotFoundError):
        find_model("a")


def test_paths_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    set_alias("here", "smollm2")
    assert find_model("here") == find_model("smollm2")
    Path("here").mkdir()
    assert find_model("here") == find_model("smollm2")  # a folder without a model
    Path("here/config.json").touch()
    assert find_model("here") == Path("here")


def test_what_people_wrote_stays() -> None:
    path = aliases_path()
    path.parent.mkdir()
    path.write_text('# mine\na = "x"  # first\n"b c" = "y"')
    set_alias("d", 'it\'s "d" \\ é')
    assert aliases() == {"a": "x", "b c": "y", "d": 'it\'s "d" \\ é'}
    assert path.read_text().startswith('# mine\na = "x"  # first\n"b c" = "y"\n"d"')
    set_alias("B C", "z")
    assert path.read_text().startswith('# mine\na = "x"  # first\n')
    path.write_text('a = """\nx"""\nb = "y"\n')
    set_alias("a", "z")
    assert aliases() == {"b": "y", "a": "z"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = ", "aliases.toml"),
        ("a = 5", 'a is no name or path: write a = "ORG/REPO"'),
        ('a = ""', "a is no"),
        ("[x]", "x is no"),
    ],
)
def test_what_is_no_table_of_aliases(text: str, said: str) -> None:
    aliases_path().parent.mkdir()
    aliases_path().write_text(text)
    with pytest.raises(FormatError, match=said):
        target_of("a")


@pytest.mark.parametrize("name", ["", " a", "a/b", "a:b", "a@b", "a\\b", "a\nb", "x" * 100])
def test_names_that_can_not_be(name: str) -> None:
    with pytest.raises(ValueError, match="can't be an alias"):
        set_alias(name, "smollm2")


def test_a_file_that_can_not_be_read_or_written() -> None:
    aliases_path().parent.write_text("a file")
    with pytest.raises(SotolError, match="can't be read"):
        set_alias("a", "smollm2")
    aliases_path().parent.unlink()
    aliases_path().mkdir(parents=True)
    with pytest.raises(SotolError, match="can't be read"):
        aliases()
