"""`sotol info` describes any GGUF file, also one that sotol can't run."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Sotol
from tests.support.checkpoints import random_checkpoint
from tests.support.folders import tiny_folder
from tests.support.tiny_model import tiny_model

from sotol.formats import read_gguf, write_gguf
from sotol.formats.weights import Weight
from sotol.quant import ENCODINGS
from sotol.tools.describing import describe

SMOLLM2 = 134_515_008  # parameters, by its model card 135M


def strange(folder: Path, **metadata: object) -> str:
    """A file with an unknown architecture, an encoding that sotol can't decode, and hostile text."""
    path = folder / "strange.gguf"
    encoding = ENCODINGS["IQ4_XS"]
    values = np.zeros(3 * 512 // encoding.values * encoding.size, np.uint8)
    weights = [
        Weight.from_bytes("blk.0.odd", encoding, (3, 512), values),
        Weight.from_values("norm", np.ones(5, np.float32), "F32"),
    ]
    write_gguf(path, {"general.architecture": "strange", **metadata}, weights)
    return str(path)


def test_the_default_model_runs(sotol: Sotol) -> None:
    facts = json.loads(sotol("info", "--json").stdout)
    assert (facts["architecture"], facts["parameters"], facts["context"]) == ("llama", SMOLLM2, 8192)
    assert (facts["runs"], facts["problems"]) == (True, [])
    assert facts["tokenizer"]["special"]["eos"] == {"id": 2, "text": "<|im_end|>"}
    assert facts["chat_template"] == "the file's own"
    assert [(e["encoding"], e["weights"]) for e in facts["encodings"]] == [("Q4_1", 210), ("Q8_0", 1), ("F32", 61)]
    assert sum(e["parameters"] for e in facts["encodings"]) == SMOLLM2
    assert sum(e["bytes"] for e in facts["encodings"]) < facts["bytes"] == Path(facts["file"]).stat().st_size
    tokens = facts["metadata"]["tokenizer.ggml.tokens"]
    assert (tokens["type"], tokens["length"], tokens["first"][:2]) == (
        "string[]",
        49152,
        ["<|endoftext|>", "<|im_start|>"],
    )


def test_tables_in_a_pipe_are_plain_text(sotol: Sotol) -> None:
    result = sotol("info")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line}
    assert rows["parameters"] == ["134,515,008"]
    assert rows["Q8_0"][:5] == ["1", "28,311,552", "30.08", "MB", "8.50"]
    assert rows["llama.block_count"] == ["30"]
    assert all(line == line.rstrip() for line in result.stdout.splitlines())


def test_how_many_experts_a_model_has(sotol: Sotol, tmp_path: Path) -> None:
    model = random_checkpoint("qwen3moe")
    write_gguf(tmp_path / "mixture.gguf", model.metadata, model.weights.values())
    shown = sotol("info", str(tmp_path / "mixture.gguf")).stdout
    assert "kv heads 1, experts 5, of which a token takes 2, expert width 32" in re.sub(r"\s+", " ", shown)


def test_a_model_that_sotol_cannot_run(sotol: Sotol, tmp_path: Path) -> None:
    path = strange(tmp_path)
    facts = json.loads(sotol("info", path, "--json").stdout)
    assert facts["runs"] is False
    assert any("architecture 'strange' is not one that sotol runs" in problem for problem in facts["problems"])
    assert [(e["encoding"], e["parameters"]) for e in facts["encodings"]] == [("IQ4_XS", 1536), ("F32", 5)]
    shown = sotol("info", path).stdout
    assert "no: " in shown
    assert "architecture 'strange'" in shown


HOSTILE = "\x1b]0;owned\x07\x9b31m\u202egnp.exe"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")  # all but newlines


def test_metadata_cannot_write_to_the_terminal(sotol: Sotol, tmp_path: Path) -> None:
    path = strange(tmp_path, **{"general.name": "\x1b]0;owned\x07[red]name", "x.y": "a\nb\x1b[31m", HOSTILE: [HOSTILE]})
    shown = sotol("info", path).stdout
    assert not OBEYED.search(shown)
    assert "]0;owned[red]name" in shown
    assert "a\\nb[31m" in shown
    written = sotol("info", path, "--json").stdout
    assert not OBEYED.search(written)
    assert json.loads(written)["metadata"][HOSTILE] == [HOSTILE]


@pytest.mark.parametrize("command", [["info"], ["info", "--json"], ["run", "hi", "-qn1"], ["tokenize", "hi"]])
@pytest.mark.parametrize(
    "fields",
    [
        {"general.architecture": HOSTILE},
        {"tokenizer.ggml.model": HOSTILE},
        {"tokenizer.ggml.pre": HOSTILE},
        {"tokenizer.chat_template": f"{{{{ raise_exception('{HOSTILE}') }}}}"},
        {"tokenizer.chat_template": f"{{% {HOSTILE} %}}"},
        {"general.architecture": "x" * 100_000},
    ],
)
def test_no_error_about_a_file_writes_to_the_terminal(
    fields: dict[str, object], command: list[str], sotol: Sotol, tmp_path: Path
) -> None:
    path = str(tiny_model(tmp_path, fields))
    result = (
        sotol(command[0], path, *command[1:], "-n1") if command[0] == "run" else sotol(command[0], path, *command[1:])
    )
    assert not OBEYED.search(result.stdout + result.stderr)
    assert result.stderr.count("\n") <= 1
    assert len(result.stderr) < 1200


def test_long_values_are_short_in_tables(sotol: Sotol, tmp_path: Path) -> None:
    path = strange(tmp_path, text="x" * 5000, few=[1, 2, 3], many=list(range(5000)), infinite=float("inf"))
    shown = sotol("info", path).stdout
    assert len(shown) < 3000
    assert "(5,000 characters)" in shown
    assert "5,000 x uint32: 0, 1, 2, 3, …" in shown
    data = json.loads(sotol("info", path, "--json").stdout)["metadata"]
    assert data["text"] == "x" * 5000
    assert data["few"] == [1, 2, 3]
    assert data["many"] == {"type": "uint32[]", "length": 5000, "first": [0, 1, 2, 3]}
    assert data["infinite"] is None


def test_a_split_model_is_all_its_parts(tmp_path: Path) -> None:
    weights = [Weight.from_values(name, np.ones(64, np.float32), "F32") for name in "abc"]
    parts = write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"}, weights, part_bytes=256)
    facts = describe(read_gguf(parts[0]))
    assert (facts["parts"], facts["parameters"]) == (3, 192)
    assert facts["bytes"] == sum(part.stat().st_size for part in parts)


def test_a_broken_file_is_one_line(sotol: Sotol, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"nonsense")
    result = sotol("info", str(tmp_path / "x.gguf"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("sotol: ")
    assert result.stderr.count("\n") == 1


def test_a_folder(sotol: Sotol, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", config={"eos_token_id": [2, 7], "strange": {"type": HOSTILE}})
    facts = json.loads(sotol("info", str(folder), "--json").stdout)
    assert (facts["runs"], facts["problems"], facts["architecture"], facts["context"]) == (True, [], "llama", 64)
    assert facts["sizes"]["block_count"] == 2
    assert facts["tokenizer"] == {
        "model": "tokenizer.json: BPE", "pretokenizer": "", "vocabulary": 48,
        "special": {"bos": {"id": 1, "text": "<s>"}, "eos": {"id": 2, "text": "</s>"}},
    }  # fmt: skip
    shown = sotol("info", str(folder)).stdout
    assert "tokenizer.json: BPE, 48 tokens" in shown
    assert not OBEYED.search(shown)
    (folder / "tokenizer.json").write_text('{"model": {"type": "Odd", "vocab": {"a": 0}}}')
    facts = json.loads(sotol("info", str(folder), "--json").stdout)
    assert facts["problems"] == ["tokenizer.json: sotol does not support model Odd"]


def test_a_folder_that_is_tokenized_and_run(sotol: Sotol, tmp_path: Path) -> None:
    folder = str(tiny_folder(tmp_path / "model"))
    assert sotol("tokenize", folder, "ab", "--ids").stdout == "3 4\n"
    result = sotol("run", folder, "hello", "-qn3", "--ignore-eos", "--seed", "1")
    assert (result.exit_code, result.stderr) == (0, "")
