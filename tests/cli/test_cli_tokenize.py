"""`sotol tokenize`; its judge is `Tokenizer`."""

import json

import pytest
from tests.cli.conftest import Sotol

from sotol import LLM

TEXT = "Hello wörld 🎉\n<|im_end|>"


def test_lines_of_ids_and_pieces(sotol: Sotol, llm: LLM) -> None:
    result = sotol("tokenize", "smollm2", "Hello wörld")
    assert result.stdout == "19556 'Hello'\n  267 ' w'\n29989 'ör'\n  400 'ld'\n"
    assert llm.tokenize("Hello wörld") == [19556, 267, 29989, 400]


@pytest.mark.parametrize("special", [False, True])
def test_ids_go_out_and_come_back(special: bool, sotol: Sotol, llm: LLM) -> None:
    option = ["--special"] if special else []
    ids = sotol("tokenize", "smollm2", "--ids", *option, stdin=TEXT)
    assert [int(word) for word in ids.stdout.split()] == llm.tokenize(TEXT, special=special)
    for form in (ids.stdout, ids.stdout.replace(" ", ", "), f"[{ids.stdout.strip()}]"):
        assert sotol("tokenize", "smollm2", form, "--decode", *option).stdout == TEXT + "\n"


def test_json(sotol: Sotol, llm: LLM) -> None:
    result = json.loads(sotol("tokenize", "smollm2", TEXT, "--json", "--special").stdout)
    assert result["text"] == TEXT
    assert [token["id"] for token in result["tokens"]] == llm.tokenize(TEXT, special=True)
    assert result["tokens"][-1] == {"id": 2, "piece": "<|im_end|>"}
    assert result["count"] == len(result["tokens"])


def test_wrong_use(sotol: Sotol) -> None:
    for arguments in (["1 x", "--decode"], ["999999", "--decode"], ["-1", "--decode", "--ids"]):
        result = sotol("tokenize", "smollm2", *arguments[1:], "--", arguments[0])
        assert result.exit_code == 2
        assert result.stderr.startswith("sotol: ")
        assert result.stderr.count("\n") == 1
