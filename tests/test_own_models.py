"""`make parity MODELS=FOLDER`: which files are compared, and that each comparison says what it found, or why not."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from bench import own_models
from bench.accuracy import exact_logits
from bench.own_models import Result, compare, main, models_in
from tests.support.tiny_model import tiny_model


def test_which_are_compared(tmp_path: Path) -> None:
    for name in ("a.gguf", "deep/b-00001-of-00002.gguf", "deep/b-00002-of-00002.gguf", "c/config.json", "d/e.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = [str(path.relative_to(tmp_path)) for path in models_in([tmp_path])]
    assert found == ["a.gguf", "deep/b-00001-of-00002.gguf", "c"]
    assert models_in([tmp_path / "a.gguf"]) == [tmp_path / "a.gguf"]
    with pytest.raises(ValueError, match="no GGUF file and no folder with a config"):
        models_in([tmp_path / "d"])


def test_what_can_not_be_compared_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the judges; a model that fails does so at each comparison, and alone."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    broken = list(compare(tmp_path / "broken.gguf", 16, 1.0, tmp_path))
    assert [result.fine for result in broken] == [False] * 5
    assert all("FormatError" in result.said for result in broken)
    model = tiny_model(tmp_path)
    results = {result.name: result for result in compare(model, 16, 1.0, tmp_path)}
    assert [results[name].fine for name in ("logits", "greedy", "ids", "template")] == [None] * 4
    assert "llama_cpp" in results["ids"].said
    assert "transformers" in results["template"].said


def test_logits_are_held_to_those_of_the_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(tmp_path)
    noise = {"size": 0.0}

    def peer(path: Path, ids: Any, **_: Any) -> Any:
        exact = exact_logits(path, ids, tmp_path)
        return exact + noise["size"] * (exact - exact.mean())

    monkeypatch.setattr(own_models, "llama_cpp_logits", peer)
    for size, fine in ((0.0, False), (1.0, True)):  # of a peer that is exact, and of one that is far off
        noise["size"] = size
        (logits, *_) = compare(model, 16, 1.0, tmp_path)
        assert (logits.name, logits.fine) == ("logits", fine), logits.said
    (large, *_) = compare(model, 16, 0.0, tmp_path)
    assert (large.fine, "too large for float64" in large.said) == (False, True)


def test_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = [Result("logits", True, "near"), Result("ids", False, "3 texts differ"), Result("template", None, "none")]
    monkeypatch.setattr(own_models, "_apart", lambda *_: results)
    (tmp_path / "a.gguf").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["own_models", str(tmp_path)])
    assert main() == 1
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == [
        "  logits     same     near", "  ids        DIFFERS  3 texts differ", "  template   -        none",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["own_models", str(tmp_path), "--json"])
    results.pop(1)
    assert main() == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["said"] == "near"
