"""`sotol convert`, `sotol split` and `sotol merge` from the command line."""

from pathlib import Path

import pytest
from tests.cli.conftest import Sotol
from tests.support.tiny_model import tiny_model

from sotol.cli.tool_options import work
from sotol.formats import read_gguf, read_model


def test_there_and_back(sotol: Sotol, tmp_path: Path) -> None:
    path, folder, again = tiny_model(tmp_path), tmp_path / "folder", tmp_path / "again.gguf"
    result = sotol("convert", str(path), str(folder), "--encoding", "bf16")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{folder}: 20 weights, BF16, ")
    assert result.stderr.startswith("sotol: a run of characters without tokens")
    assert sotol("convert", str(folder), str(again), "--outtype", "f16", "-q").stdout == ""
    kinds = {weight.encoding.name for weight in read_gguf(again).weights.values()}
    assert kinds == {"F16", "F32"}
    assert sotol("run", str(again), "ab", "-qn2", "--ignore-eos", "--seed", "1").exit_code == 0


def test_parts(sotol: Sotol, tmp_path: Path) -> None:
    path = tiny_model(tmp_path)
    result = sotol("split", str(path), str(tmp_path / "p"), "--max-tensors", "8")
    assert result.stdout.startswith(f"{tmp_path / 'p'}-00001-of-00003.gguf to p-00003-of-00003.gguf: 3 parts, ")
    result = sotol("merge", str(tmp_path / "p-00002-of-00003.gguf"), str(tmp_path / "one.gguf"))
    assert result.exit_code == 0
    assert (tmp_path / "one.gguf").read_bytes() == path.read_bytes()
    assert sotol("split", str(path), str(tmp_path / "s"), "--max-size", "20kB").exit_code == 0
    assert len(read_gguf(next(tmp_path.glob("s-00001-*"))).parts) > 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["convert", "{model}", "{folder}/x.gguf"], 1, "a GGUF file becomes a folder"),
        (["convert", "{model}", "{folder}"], 1, "is there already: give another path, or --force"),
        (["convert", "{model}", "{folder}/x", "--encoding", "Q4_K"], 2, "encoding is 'Q4_K': the options are F32"),
        (["convert", "{folder}/none", "{folder}/x"], 1, "no model"),
        (["split", "{model}", "{folder}/p"], 2, "give --max-size, --max-tensors, or both"),
        (["split", "{model}", "{folder}/p", "--max-size", "many"], 2, "max-size"),
        (
            ["split", "{model}", "{folder}/p", "--max-size", "2"],
            2,
            "max-size is 2, 2 bytes: a part has 10,000 at least",
        ),
        (["split", "{model}", "{folder}/p", "--max-size", "1GB"], 1, "there is nothing to split"),
        (["split", "{model}", "{folder}/none/p", "--max-tensors", "3"], 1, "there is no folder"),
        (["merge", "{model}", "{folder}/x.gguf"], 1, "is no part of a split model"),
    ],
)
def test_mistakes_are_one_line(sotol: Sotol, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    model = tiny_model(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = sotol(*(word.format(model=model, folder=tmp_path) for word in arguments))
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_info_of_what_was_made(sotol: Sotol, tmp_path: Path) -> None:
    path, folder = tiny_model(tmp_path), tmp_path / "folder"
    sotol("convert", str(path), str(folder), "-q")
    shown = sotol("info", str(folder), "--context-size", "32").stdout
    assert "at a context of 32 tokens" in shown
    assert "runs in sotol  yes" in shown
    assert read_model(folder).metadata["model_type"] == "llama"


@pytest.mark.parametrize(("quiet", "said"), [(False, "sotol: interrupted: no file was written\n"), (True, "")])
def test_an_interrupt_is_told(quiet: bool, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), work(quiet=quiet, color=False):
        raise KeyboardInterrupt
    assert capsys.readouterr() == ("", said)
