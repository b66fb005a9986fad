"""Which of a repository's files are a model, and which is meant."""

import os
import re
from pathlib import PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.errors import FormatError, ModelNotFoundError
from sotol.hub.choosing import RepoFile, choices, choose, safe_path


def found(*paths: str) -> dict[str, list[str]]:
    return {choice.label: [file.path for file in choice.files] for choice in choices(RepoFile(path) for path in paths)}


def taken(wanted: str, *paths: str) -> str:
    return choose(choices(RepoFile(path) for path in paths), wanted, "org/repo").files[0].path


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("SmolLM2-1.7B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("model.q8_0.gguf", "Q8_0"),
        ("Qwen3-30B-A3B-UD-IQ1_S.gguf", "UD-IQ1_S"),
        ("gemma-3-1b-it-q4_0.gguf", "Q4_0"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("a/TQ2_0/x-TQ2_0.gguf", "TQ2_0"),
        ("x-bf16.gguf", "BF16"),
        ("Q6_K/model.gguf", "Q6_K"),
        ("model-IQ4_XS-00001-of-00001.gguf", "IQ4_XS"),
        ("plain.gguf", "plain"),
        ("Q4_K_M-experiment-Q8_0.GGUF", "Q8_0"),
        ("x-Q3_K_XL.gguf", "Q3_K_XL"),
        ("x-Q4_0_4_4.gguf", "Q4_0_4_4"),
    ],
)
def test_encodings_by_name(path: str, label: str) -> None:
    assert found(path) == {label: [path]}


def test_split_files_are_one_model() -> None:
    parts = [f"m-Q4_K_M-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert found(*reversed(parts), "m-Q8_0-00001-of-00002.gguf") == {"Q4_K_M": parts}


def test_what_lies_beside_models() -> None:
    assert found("mmproj-F16.gguf", "x/mmproj.gguf", "m.imatrix.gguf", "imatrix_unsloth.gguf", "a.txt", "m.bin") == {}


def test_safetensors() -> None:
    beside = ["config.json", "tokenizer.json", "README.md", "optimizer.bin", "original/model.safetensors"]
    assert found(*beside, "model.safetensors", "model.fp16.safetensors") == {
        "safetensors": ["config.json", "tokenizer.json", "model.safetensors"]
    }
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = "model.safetensors.index.json"
    others = ["consolidated-00001-of-00001.safetensors", index]
    assert found(*beside, *shards, *others) == {"safetensors": ["config.json", "tokenizer.json", index, *shards]}
    assert found(*beside, shards[0]) == {}
    assert found("config.json", "weights.safetensors") == {"safetensors": ["config.json", "weights.safetensors"]}
    assert found("config.json", "a.safetensors", "b.safetensors") == found("model.safetensors") == {}


def test_what_is_meant() -> None:
    files = ("x-Q8_0.gguf", "x-Q4_K_M.gguf", "x-UD-Q2_K_XL.gguf", "big/x-BF16-00001-of-00002.gguf",
             "big/x-BF16-00002-of-00002.gguf", "config.json", "model.safetensors")  # fmt: skip
    for wanted, path in [
        ("", "x-Q4_K_M.gguf"),
        ("q8_0", "x-Q8_0.gguf"),
        ("x-q8_0.GGUF", "x-Q8_0.gguf"),
        ("x-Q8_0", "x-Q8_0.gguf"),
        ("Q2_K_XL", "x-UD-Q2_K_XL.gguf"),
        ("bf16", "big/x-BF16-00001-of-00002.gguf"),
        ("big/x-BF16-00002-of-00002.gguf", "big/x-BF16-00001-of-00002.gguf"),
        ("x-BF16", "big/x-BF16-00001-of-00002.gguf"),
        ("safetensors", "config.json"),
    ]:
        assert taken(wanted, *files) == path
    with pytest.raises(ModelNotFoundError, match=re.escape("org/repo has no Q5_K_M: it has BF16, Q4_K_M,")):
        taken("Q5_K_M", *files)


@pytest.mark.parametrize(
    ("files", "path"),
    [
        (["a-F16.gguf", "a-Q8_0.gguf", "a-Q2_K.gguf"], "a-Q8_0.gguf"),
        (["a-Q2_K.gguf", "a-IQ1_S.gguf"], "a-IQ1_S.gguf"),
        (["a-F16.gguf", "a-Q4_0.gguf"], "a-Q4_0.gguf"),
        (["b.gguf", "config.json", "model.safetensors"], "b.gguf"),
    ],
)
def test_the_default(files: list[str], path: str) -> None:
    assert taken("", *files) == path


def test_two_models_of_one_encoding() -> None:
    files = ("a.Q4_K_M.gguf", "b.Q4_K_M.gguf")
    assert list(found(*files)) == list(files)
    assert taken("b.q4_k_m", *files) == files[1]
    with pytest.raises(ModelNotFoundError, match=r"has a\.Q4_K_M\.gguf, b\.Q4_K_M\.gguf as Q4_K_M: name one"):
        taken("Q4_K_M", *files)


def test_no_model() -> None:
    with pytest.raises(ModelNotFoundError, match="org/repo has no model that sotol could load"):
        taken("", "README.md", "pytorch_model.bin")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "./a",
        "a/.",
        "a\\b",
        "C:x",
        "a\0b",
        "a\nb",
        "x" * 256,
        "a/",
        "\u202ex",
    ],
)
def test_names_that_lead_out(path: str) -> None:
    with pytest.raises(FormatError, match="the Hub names the file"):
        safe_path(path)


@given(st.text(max_size=40))
def test_a_name_that_is_let_through_lies_below(path: str) -> None:
    try:
        safe_path(path)
    except FormatError:
        return
    assert os.path.normpath(f"/snapshots/{path}") == f"/snapshots/{path}"
    there = PureWindowsPath("C:/snapshots") / path
    assert (there.drive, ".." in there.parts, there.parts[1]) == ("C:", False, "snapshots")
