"""`sotol quantize`, `sotol imatrix` and `sotol perplexity`: from a text to files that go with each other."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Sotol
from tests.support.tiny_model import tiny_model

from sotol import LLM
from sotol.formats import read_gguf, write_gguf
from sotol.tools.importance import read_importance

TEXT = "the cat sat on the mat, and the dog ran off. " * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a model, tiny.gguf, and text.txt."""
    path = tmp_path_factory.mktemp("files")
    tiny_model(path)
    (path / "text.txt").write_text(TEXT)
    return path


def test_quantize(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    result = sotol("quantize", str(folder / "tiny.gguf"), str(out), "--mix", "Q8_0", "--pattern", "*ffn_up=F16")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{out}: ")
    assert "bits each" in result.stdout
    assert result.stdout.endswith("\nweights: 13 Q8_0, 5 F32, 2 F16\n")
    encodings = {w.encoding.name for w in read_gguf(out).weights.values()}
    assert encodings == {"Q8_0", "F16", "F32"}
    with LLM(out, ctx=64) as model:
        assert model.generate("the cat", max_tokens=3, ignore_eos=True).usage.completion_tokens == 3


@pytest.mark.parametrize(
    ("arguments", "file_type"),
    [(["q4_k_m"], 15), (["--mix", "Q4_K"], 15), (["-m", "q3_k"], 12), (["-e", "q8_0"], 7), (["IQ4_XS"], 30)],
)
def test_names_in_any_case_and_place(
    sotol: Sotol, folder: Path, tmp_path: Path, arguments: list[str], file_type: int
) -> None:
    """Also the short ones that llama.cpp's tool has."""
    out = tmp_path / "out.gguf"
    assert sotol("quantize", str(folder / "tiny.gguf"), str(out), *arguments).exit_code == 0
    assert read_gguf(out).metadata["general.file_type"] == file_type


def test_a_pattern_in_any_case(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    assert sotol("quantize", str(folder / "tiny.gguf"), str(out), "Q8_0", "--pattern", "*ffn_up=f16").exit_code == 0
    assert read_gguf(out).weights["blk.0.ffn_up.weight"].encoding.name == "F16"


def test_other_gguf_files_are_no_models(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    matrix, out = str(tmp_path / "i.gguf"), str(tmp_path / "out")
    sotol("imatrix", str(folder / "tiny.gguf"), "-f", str(folder / "text.txt"), "-o", matrix, "-c", "32", "-w", "1")
    for words in (["run", matrix, "hi"], ["quantize", matrix, out, "Q8_0"], ["convert", matrix, out]):
        result = sotol(*words)
        assert (result.exit_code, result.stderr) == (1, f"sotol: {matrix}: is an importance matrix, and no model\n")
    shown = sotol("info", matrix).stdout
    assert "is an importance matrix, and no model" in shown
    assert "None" not in shown.split("runs in sotol")[0]


def test_quantize_a_folder(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    """As the GGUF file that it would be converted to."""
    hub, gguf = tmp_path / "hub", tmp_path / "half.gguf"
    assert sotol("convert", str(folder / "tiny.gguf"), str(hub)).exit_code == 0
    assert sotol("convert", str(hub), str(gguf)).exit_code == 0
    for source, out in ((hub, tmp_path / "a.gguf"), (gguf, tmp_path / "b.gguf")):
        result = sotol("quantize", str(source), str(out), "--mix", "Q8_0")
        assert result.exit_code == 0, result.stderr
    first, second = (read_gguf(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    assert list(first.metadata.items()) == list(second.metadata.items())
    assert {n: bytes(w.rows()) for n, w in first.weights.items()} == {
        n: bytes(w.rows()) for n, w in second.weights.items()
    }


def test_quantize_json(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    said = json.loads(sotol("quantize", str(folder / "tiny.gguf"), str(out), "-e", "Q4_0", "--json").stdout)
    assert said["file"] == str(out)
    assert said["bytes"] < said["bytes_before"]
    assert said["encodings"]["blk.0.ffn_up.weight"] == "Q4_0"
    assert 4.5 < said["bits_per_weight"] < 6


def test_a_file_that_is_there_stays_unless_forced(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("mine")
    result = sotol("quantize", str(folder / "tiny.gguf"), str(out), "--mix", "Q8_0")
    assert (result.exit_code, out.read_text()) == (1, "mine")
    assert result.stderr == f"sotol: {out}: is there already: give another path, or --force\n"
    assert sotol("quantize", str(folder / "tiny.gguf"), str(out), "--mix", "Q8_0", "--force", "-q").stdout == ""
    assert read_gguf(out).metadata["general.file_type"] == 7


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--mix", "Q4_K_M", "--encoding", "Q4_K"], 2, "give --mix, such as --mix Q4_K_M, or --encoding, one of them"),
        ([], 2, "give --mix"),
        (["--mix", "Q4_KM"], 2, "there is no mix 'Q4_KM'"),
        (["-e", "Q4_0", "--pattern", "blk"], 2, "--pattern 'blk' is not like"),
        (["-e", "Q4_0", "--pattern", "nothing=Q8_0"], 2, "no weight has a name like 'nothing'"),
        (["-e", "q4_k_m"], 2, "there is no encoder for 'q4_k_m': it is a mix: --mix Q4_K_M"),
        (["--mix", "mxfp4"], 2, "there is no mix 'mxfp4': it is an encoding: --encoding MXFP4"),
        (["Q4_0", "--mix", "Q4_0"], 2, "give --mix"),
        (["Q4_0", "--mix", "Q8_0"], 2, "Q4_0 and --mix Q8_0 are given: give --mix"),
        ([], 2, "out.gguf is the file to write, and no mix is given: give --mix"),
        (["-e", "Q4_0", "--imatrix", "nothing.gguf"], 1, "nothing.gguf: there is no such file"),
    ],
)
def test_wrong_use_of_quantize(
    sotol: Sotol, folder: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    result = sotol("quantize", str(folder / "tiny.gguf"), str(tmp_path / "out.gguf"), *arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_is_never_replaced(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    model, text, matrix = tmp_path / "m.gguf", tmp_path / "text.txt", tmp_path / "imatrix.gguf"
    model.write_bytes((folder / "tiny.gguf").read_bytes())
    text.write_bytes((folder / "text.txt").read_bytes())
    (tmp_path / "link.gguf").symlink_to(model)
    assert sotol("imatrix", str(model), "-f", str(text), "-o", str(matrix), "-c", "32").exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for words, kept in (
        (["quantize", model, model, "Q8_0"], model),
        (["quantize", model, tmp_path / "link.gguf", "Q8_0"], tmp_path / "link.gguf"),
        (["quantize", model, matrix, "Q8_0", "--imatrix", matrix], matrix),
        (["imatrix", model, "-f", text, "-o", model], model),
        (["imatrix", model, "-f", text, "-o", text], text),
        (["perplexity", model, "-f", text, "--save-logits", text], text),
    ):
        result = sotol(*map(str, words), "--force")
        said = f"sotol: {kept}: is what is read, and would be lost: give another path to write to\n"
        assert (result.exit_code, result.stderr) == (1, said)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_without_weights(sotol: Sotol, tmp_path: Path) -> None:
    write_gguf(tmp_path / "vocabulary.gguf", {"general.architecture": "llama"}, [])
    result = sotol("quantize", str(tmp_path / "vocabulary.gguf"), str(tmp_path / "out.gguf"), "Q8_0")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "has no weights: there is nothing to quantise" in result.stderr


def test_rows_that_are_no_whole_blocks_are_told(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    said = sotol("quantize", str(folder / "tiny.gguf"), str(tmp_path / "a.gguf"), "Q4_K_M").stdout
    assert "are no whole blocks of Q4_K (256 numbers): these get an encoding of smaller blocks\n" in said
    assert "blocks" not in sotol("quantize", str(folder / "tiny.gguf"), str(tmp_path / "b.gguf"), "Q4_0").stdout


@pytest.mark.skipif(os.name != "posix", reason="devices are no files here")
def test_a_device_is_never_replaced(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    model, null = str(folder / "tiny.gguf"), tmp_path / "null"
    null.symlink_to(os.devnull)
    for words in (
        ["quantize", model, str(null), "Q8_0"],
        ["imatrix", model, "-f", str(folder / "text.txt"), "-o", str(null)],
        ["perplexity", model, "-f", str(folder / "text.txt"), "--save-logits", str(null)],
    ):
        result = sotol(*words, "--force")
        said = f"sotol: {null}: is a device or a pipe: give the path of a file\n"
        assert (result.exit_code, result.stderr) == (1, said)
    assert null.is_symlink()


def test_an_importance_matrix_goes_to_quantize(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    model, matrix = str(folder / "tiny.gguf"), tmp_path / "i.gguf"
    result = sotol("imatrix", model, "-f", str(folder / "text.txt"), "-o", str(matrix), "-c", "32")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{matrix}: 14 weights, over 5 windows of 32 tokens\n"
    found = read_importance(matrix)
    assert found.datasets == ("text.txt",)
    means = found.of("blk.1.ffn_down.weight")
    assert means is not None
    assert means.min() > 0
    text = str(folder / "text.txt")
    again = sotol(
        "imatrix", model, "-f", text, "--add", str(matrix), "-o", str(matrix), "-c", "32", "-w", "1", "--force"
    )
    assert again.stdout == f"{matrix}: 14 weights, over 6 windows of 32 tokens\n"
    plain, informed = tmp_path / "a.gguf", tmp_path / "b.gguf"
    assert sotol("quantize", model, str(plain), "--mix", "Q4_0").exit_code == 0
    assert sotol("quantize", model, str(informed), "--mix", "Q4_0", "--imatrix", str(matrix)).exit_code == 0
    one, other = (read_gguf(path).weights["blk.1.ffn_down.weight"].rows() for path in (plain, informed))
    assert not np.array_equal(one, other)


def test_tools_as_llama_cpp_has_them(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    """The model as an option, windows as chunks, a text on standard input."""
    model, matrix, base = str(folder / "tiny.gguf"), str(tmp_path / "i.gguf"), str(tmp_path / "base")
    result = sotol("imatrix", "-m", model, "-f", "-", "-o", matrix, "--ctx-size", "32", "--chunks", "2", stdin=TEXT)
    assert result.stdout == f"{matrix}: 14 weights, over 2 windows of 32 tokens\n"
    text = str(folder / "text.txt")
    result = sotol("perplexity", "-m", model, "-f", text, "-c", "32", "--save-all-logits", base, "--chunks", "1")
    assert result.stdout.endswith(", 15 tokens in 1 windows of 32\n")
    assert Path(base).is_file()
    result = sotol("perplexity", model, "-m", model, "-f", text)
    assert (result.exit_code, result.stderr.split(":")[1]) == (2, f" two models are given, {model} and {model}")


def test_imatrix_needs_a_text_and_a_place(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    model = str(folder / "tiny.gguf")
    assert sotol("imatrix", model, "-o", str(tmp_path / "i")).stderr == "sotol: give a text to read, with -f FILE\n"
    result = sotol("imatrix", model, "-f", str(folder / "text.txt"), "-o", str(tmp_path / "none" / "i"))
    said = f"sotol: {tmp_path / 'none' / 'i'}: there is no folder {tmp_path / 'none'}\n"
    assert (result.exit_code, result.stderr) == (1, said)
    result = sotol("imatrix", model, "-f", str(folder / "text.txt"), "-o", str(tmp_path))
    assert result.stderr == f"sotol: {tmp_path}: is a folder: give the path of a file\n"


def test_perplexity_and_divergence(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    model, base, text = str(folder / "tiny.gguf"), tmp_path / "base", str(folder / "text.txt")
    result = sotol("perplexity", model, "-f", text, "-c", "32", "--save-logits", str(base))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("perplexity ")
    assert result.stdout.endswith(", 75 tokens in 5 windows of 32\n")
    told = [line for line in result.stderr.splitlines() if line.startswith("[")]
    assert [line.split()[0] for line in told] == [f"[{i}]" for i in range(1, 6)]
    coarse = tmp_path / "coarse.gguf"
    assert sotol("quantize", model, str(coarse), "-e", "Q4_0").exit_code == 0
    said = sotol("perplexity", str(coarse), "--baseline", str(base), "-q").stdout.splitlines()
    assert [line.split()[0] for line in said] == ["perplexity", "baseline", "divergence", "same"]
    facts = json.loads(sotol("perplexity", str(coarse), "--baseline", str(base), "--json").stdout)
    assert 0.001 < facts["divergence"]["mean"] < 1
    assert facts["tokens"] == 75
    own = json.loads(sotol("perplexity", model, "--baseline", str(base), "--json").stdout)
    assert abs(own["divergence"]["mean"]) < 1e-6


def test_wrong_use_of_perplexity(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    model = str(folder / "tiny.gguf")
    lacking = "sotol: give a text with -f FILE, or --baseline FILE, or --choices FILE, one of them\n"
    assert sotol("perplexity", model).stderr == lacking
    assert sotol("perplexity", model, "-f", "a", "--choices", "b").stderr == lacking
    result = sotol("perplexity", model, "--choices", "b", "--save-logits", str(tmp_path / "c"))
    assert (result.exit_code, result.stderr) == (2, "sotol: --save-logits goes with a text, not with --choices\n")
    broken = tmp_path / "broken"
    broken.write_bytes(b"nothing")
    result = sotol("perplexity", model, "--baseline", str(broken))
    assert result.exit_code == 1
    assert "is no file of log-probabilities" in result.stderr
    result = sotol("perplexity", model, "--baseline", str(broken), "-c", "32")
    assert result.exit_code == 2
    assert result.stderr.startswith("sotol: --ctx goes with a text or --choices: windows are those of the --baseline")
    result = sotol("perplexity", model, "-f", str(folder / "text.txt"), "-c", "100")
    assert result.exit_code == 2
    assert "windows of 100 tokens: the model takes from 8 to 64" in result.stderr


def test_choices(sotol: Sotol, folder: Path, tmp_path: Path) -> None:
    model, file = str(folder / "tiny.gguf"), tmp_path / "questions.jsonl"
    question = {"ctx": "the cat sat on", "endings": ["the mat", "a dog", "it"], "label": "0"}
    file.write_text(3 * (json.dumps(question) + "\n"))
    said = sotol("perplexity", model, "--choices", str(file), "-c", "64")
    assert said.exit_code == 0, said.stderr
    assert said.stdout.endswith(" %, of 3 questions\n")
    assert [line.split()[0] for line in said.stderr.splitlines()] == ["[1]", "[2]", "[3]"]
    facts = json.loads(sotol("perplexity", model, "--choices", str(file), "-c", "64", "-w", "2", "--json").stdout)
    assert facts["questions"] == 2
    assert facts["accuracy"] in (0, 1)
    file.write_text("{}")
    result = sotol("perplexity", model, "--choices", str(file))
    assert (result.exit_code, result.stderr) == (
        1, f"sotol: {file}, line 1: context (or HellaSwag's ctx) is None, not a text\n",
    )  # fmt: skip
