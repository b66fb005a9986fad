"""tekken.json: ids as of a byte-level BPE of `tokenizers` with the same tokens in the same order."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.tokenizers.conftest import CORPUS

from sotol.errors import FormatError, ModelError
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.bpe import BYTE_OF_CHARACTER
from sotol.tokenizers.pretokenize import TEKKEN
from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Judge

RESERVED = 100


@pytest.fixture(scope="session")
def judge() -> Judge:
    judge = Judge(models.BPE(ignore_merges=True))
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    judge.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(TEKKEN), "isolated"), spelled])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=560, initial_alphabet=alphabet, show_progress=False)
    judge.train_from_iterator(CORPUS * 3, trainer)
    return judge


@pytest.fixture
def given(judge: Judge) -> dict[str, Any]:
    """The file, with ten tokens more than the model uses."""
    count = judge.get_vocab_size()
    config = {"pattern": TEKKEN, "default_vocab_size": RESERVED + count, "default_num_special_tokens": RESERVED}
    texts = [bytes(BYTE_OF_CHARACTER[c] for c in str(judge.id_to_token(i))) for i in range(count)]
    texts += [b"unused %d" % i for i in range(10)]
    vocab = [
        {"rank": i, "token_bytes": base64.b64encode(data).decode(), "token_str": None} for i, data in enumerate(texts)
    ]
    return {"config": {**config, "version": "v3", "num_vocab_tokens": len(vocab)}, "vocab": vocab}


def load(folder: Path, given: object) -> Tokenizer:
    (folder / "tekken.json").write_text(json.dumps(given))
    return Tokenizer.from_folder(folder)


def test_ids_of_a_corpus(given: dict[str, Any], judge: Judge, tmp_path: Path) -> None:
    tokenizer = load(tmp_path, given)
    assert len(tokenizer) == RESERVED + judge.get_vocab_size()
    assert (tokenizer.bos, tokenizer.eos, tokenizer.adds_bos) == (1, 2, True)
    assert tokenizer.end_of_generation == {2}
    for text in [*CORPUS, "".join(CORPUS), "", "unused 1"]:
        ids = tokenizer.encode(text, add_special=False)
        assert ids == [RESERVED + i for i in judge.encode(text).ids]
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode("[INST]a</s>", special=True) == [1, 3, *tokenizer.encode("a", add_special=False), 2]
    assert 3 not in tokenizer.encode("[INST]")
    assert tokenizer.token_text(99) == "<SPECIAL_99>"


def test_special_tokens_that_the_file_names(given: dict[str, Any], tmp_path: Path) -> None:
    names = ["<unk>", "<s>", "</s>", "[THINK]"]
    given["special_tokens"] = [{"rank": i, "token_str": text, "is_control": True} for i, text in enumerate(names)]
    tokenizer = load(tmp_path, given)
    assert [tokenizer.token_text(i) for i in (3, 4)] == ["[THINK]", "<SPECIAL_4>"]
    assert tokenizer.encode("[THINK]", special=True) == [1, 3]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("config", None, "config is None, not an object"),
        ("config", {"pattern": "a"}, "vocab has 570 tokens, and config asks for 0"),
        ("config", {"pattern": "a", "default_vocab_size": 9999}, "vocab has 570 tokens, and config asks for 9999"),
        ("config", {"default_vocab_size": 1 << 30, "default_num_special_tokens": 1 << 29}, "more than sotol accepts"),
        ("config", {"default_vocab_size": 9999, "default_num_special_tokens": 8888}, "is 8888 for 20 names"),
        ("config", {"default_vocab_size": 300}, "config.pattern is None, not text"),
        ("vocab", {}, "vocab has 0 tokens"),
        ("vocab", [1] * 999, "vocab[0] is 1, not the bytes of rank 0"),
        (
            "vocab",
            [{"rank": 0, "token_bytes": "?"}] * 999,
            "vocab[0] is {'rank': 0, 'token_bytes': '?'}, not",
        ),
        ("vocab", [{"rank": i, "token_bytes": "YQ=="} for i in range(999)], "vocab has a token twice"),
        ("special_tokens", {}, "special_tokens is not a list"),
        ("special_tokens", [1], "special_tokens[0] is 1, not an object"),
    ],
)
def test_what_is_wrong(key: str, value: object, message: str, given: dict[str, Any], tmp_path: Path) -> None:
    given[key] = value
    with pytest.raises(FormatError, match=re.escape(message)) as error:
        load(tmp_path, given)
    assert str(error.value).startswith(str(tmp_path / "tekken.json"))


def test_an_expression_that_is_not_supported(given: dict[str, Any], tmp_path: Path) -> None:
    given["config"]["pattern"] = "(?R)?a"
    with pytest.raises(ModelError, match=r"tekken\.json: sotol does not support"):
        load(tmp_path, given)
