"""Conversations on disk: private, whole, and checked when they come back."""

import json
import stat
from pathlib import Path

import platformdirs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sotol.cli.conversations import Conversation, folder, load, names, save
from sotol.errors import FormatError, SotolError

TURNS = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()}))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda name: str(tmp_path / name))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.none() | st.text(), TURNS)
def test_what_is_kept_comes_back(model: str, system: str | None, turns: list[dict[str, str]]) -> None:
    kept = Conversation(model, system, turns)
    save("it", kept)
    assert load("it") == kept
    assert names() == ["it"]


def test_it_is_nobody_elses_business() -> None:
    path = save("it", Conversation("m", None, []))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in folder().iterdir()] == ["it.json"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 101, "a\0", "a\nb"])
def test_names_that_are_none(name: str) -> None:
    for act in (load, lambda name: save(name, Conversation("m", None, []))):
        with pytest.raises(ValueError, match="is no name: give up to 100 letters"):
            act(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "\xff",
        "[" * 100_000,
        json.dumps({"sotol": 1, "model": "m", "system": None, "turns": [{"role": "system", "content": "x"}]}),
        json.dumps({"sotol": 1, "model": "m", "system": None, "turns": [{"role": "user", "content": 1}]}),
        json.dumps({"sotol": 1, "model": "m", "system": 5, "turns": []}),
        json.dumps({"sotol": 2, "model": "m", "system": None, "turns": []}),
    ],
)
def test_files_that_are_none(text: str) -> None:
    save("it", Conversation("m", None, [])).write_text(text, encoding="latin-1")
    with pytest.raises(FormatError, match="is no conversation that sotol saved"):
        load("it")


def test_a_place_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sotol").write_text("")
    with pytest.raises(SotolError, match="can't be written: "):
        save("it", Conversation("m", None, []))
    assert names() == []
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda name: f"~/{name}")
    with pytest.raises(SotolError, match="set HOME"):
        load("it")
