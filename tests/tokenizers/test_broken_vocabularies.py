"""Faulty vocabularies of real files: each is interpreted as the table says, and one warning names the field."""

import logging
from pathlib import Path

import pytest
from tests.support.broken_vocabularies import BPE, CASES, SENTENCEPIECE, Broken, bpe, sentencepiece

from sotol.formats import write_gguf
from sotol.tokenizers import Tokenizer

WORDS, TWICE = SENTENCEPIECE.index("in"), len(SENTENCEPIECE)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_is_used_with_one_warning(case: Broken, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = Tokenizer.from_metadata(case.fields, "m.gguf")
    assert [tokenizer.token_text(i) for i in tokenizer.encode(case.text)] == case.tokens.split()
    assert {tokenizer.token_text(i) for i in tokenizer.end_of_generation} == set(case.ends.split())
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == (case.warned != "")
    assert all(text.startswith("m.gguf: ") and f"tokenizer.ggml.{case.warned} " in text for text in warnings)
    assert {record.name.partition(".")[0] for record in caplog.records} <= {"sotol"}
    assert {record.levelno for record in caplog.records} <= {logging.WARNING}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_text_of_a_user_ends_a_turn(case: Broken) -> None:
    tokenizer = Tokenizer.from_metadata(case.fields)
    ends = [i for i in tokenizer.end_of_generation if tokenizer.token_text(i) not in ("in", "<reponame>")]
    for end in ends:
        assert end not in tokenizer.encode(f"a{tokenizer.token_text(end)}a", add_special=False)
        assert tokenizer.decode([end]) == ""


def test_several_faults_are_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    Tokenizer.from_metadata(sentencepiece(scores=None, token_type=None, bos_token_id=999), "m.gguf")
    (record,) = caplog.records
    assert all(field in record.getMessage() for field in ("scores", "token_type", "bos_token_id is 999"))


def test_bytes_typed_as_normal_are_shown_as_bytes() -> None:
    tokenizer = Tokenizer.from_metadata(sentencepiece(token_type=None))
    assert tokenizer.decode(tokenizer.encode("é\n")) == "é\n"


def test_of_equal_tokens_the_first_is_written_and_each_is_read() -> None:
    tokenizer = Tokenizer.from_metadata(sentencepiece(("in", 1), ("<|im_end|>", 3), ("<|im_end|>", 1)))
    assert tokenizer.encode("in", add_special=False) == [SENTENCEPIECE.index("▁"), WORDS]
    assert tokenizer.id_of("in") == WORDS
    assert tokenizer.decode([TWICE], continued=True) == "in"
    assert {TWICE + 1, TWICE + 2} <= tokenizer.end_of_generation
    assert tokenizer.encode("<|im_end|>", special=True, add_special=False) == [TWICE + 1]


def test_special_ids_that_are_words_are_not_taken_by_default() -> None:
    tokens = ["a", "b", "c", "d"]
    values: dict[str, object] = {"model": "llama", "tokens": tokens, "token_type": [1] * 4, "scores": [0.0] * 4}
    tokenizer = Tokenizer.from_metadata({f"tokenizer.ggml.{name}": value for name, value in values.items()})
    assert (tokenizer.bos, tokenizer.eos, tokenizer.end_of_generation) == (None, None, frozenset())


def test_tokens_that_are_not_utf8_are_their_bytes() -> None:
    broken = b"\xff\xfeab".decode(errors="surrogateescape")
    for fields, first in ((sentencepiece((broken, 1)), TWICE), (bpe((broken, 4)), len(BPE))):
        tokenizer = Tokenizer.from_metadata(fields)
        assert tokenizer.token_bytes(first) == b"\xff\xfeab"
        assert tokenizer.decode([first]) == tokenizer.token_text(first) == "\ufffd\ufffdab"
        assert first not in tokenizer.encode("\udcff\udcfeab")


def test_ids_that_only_the_model_has_are_nothing() -> None:
    tokenizer = Tokenizer.from_metadata(bpe(), logits=len(BPE) + 3)
    assert len(tokenizer) == len(BPE)
    assert tokenizer.decode([*tokenizer.encode("in"), len(BPE), len(BPE) + 2], special=True) == "in"
    with pytest.raises(ValueError, match="not in the vocabulary"):
        tokenizer.decode([len(BPE) + 3])


def test_tokens_of_a_file_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "bytes.gguf"
    fields = bpe(("QXYZ", 1), ("QX", 1), merges=["Q X", "Y Z", "QX YZ"])
    write_gguf(path, fields, [])
    path.write_bytes(path.read_bytes().replace(b"QXYZ", b"Q\xff\xfeZ").replace(b"QX YZ", b"Q\xff \xfeZ"))
    tokenizer = Tokenizer.from_gguf(path)
    assert tokenizer.token_bytes(len(BPE)) == b"Q\xff\xfeZ"
    assert tokenizer.decode(tokenizer.encode("QX the")) == "QX the"
