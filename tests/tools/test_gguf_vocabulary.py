"""Tokenizers of folders as GGUF's fields: the same ids, by the name of each way to cut words that there is."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.sentencepieces import PIECES, model_file
from tests.tokenizers.conftest import CORPUS, JUDGES, byte_bpe, gemma4

from sotol.errors import FormatError, ModelError
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.bpe import BYTE_OF_CHARACTER
from sotol.tokenizers.hub.parts import Part
from sotol.tokenizers.hub.splitters import read_splitter
from sotol.tokenizers.pretokenize import PRETOKENIZERS, TEKKEN
from sotol.tools.gguf_vocabulary import gguf_vocabulary
from sotol.tools.pretokenizer_names import PROBE, pretokenizer_name
from tokenizers import Tokenizer as Judge


def folder_of(path: Path, judge: Judge | dict[str, Any], **config: object) -> Path:
    path.mkdir(exist_ok=True)
    (path / "tokenizer.json").write_text(judge.to_str() if isinstance(judge, Judge) else json.dumps(judge))
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def test_all_ways_that_have_a_name_cut_the_probe_otherwise() -> None:
    cuts: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for row in PRETOKENIZERS.values():
        cuts.setdefault(tuple(row.split(PROBE)), set()).add(row.expressions)
    assert all(len(rows) == 1 for rows in cuts.values())
    assert len(cuts) == len({row.expressions for row in PRETOKENIZERS.values()})


@pytest.mark.parametrize("name", JUDGES)
def test_the_models_own_ways_are_recognised(name: str) -> None:
    split = read_splitter(Part(JUDGES[name], "", "pre_tokenizer"))
    assert split is not None
    if name == "falcon":  # which cuts digits after it has spelled them
        assert pretokenizer_name(split, whole_words=False) in (None, "falcon")
        return
    assert pretokenizer_name(split, whole_words=PRETOKENIZERS[name].whole_words) == name


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2", "gpt-4o", "tekken", "deepseek-v3"])
def test_byte_level_vocabularies(name: str, tmp_path: Path) -> None:
    _, judge = byte_bpe(name)
    folder = folder_of(
        tmp_path / "m",
        judge,
        eos_token="<|im_end|>",
        bos_token="<bos>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )
    given = gguf_vocabulary(folder, judge.get_vocab_size() + 5, "llama")
    fields, ids = given.metadata, judge.get_vocab()
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", name)
    assert given.remarks == ()
    made, original = Tokenizer.from_metadata(fields), Tokenizer.from_folder(folder)
    for text in CORPUS:
        assert made.encode(text) == original.encode(text) == judge.encode(text, add_special_tokens=False).ids
        marked = f"{text}<|im_end|> <think>x</think>"
        assert made.encode(marked, special=True) == original.encode(marked, special=True)
    assert (made.eos, made.bos, made.adds_bos) == (ids["<|im_end|>"], ids["<bos>"], False)
    assert made.end_of_generation == original.end_of_generation
    tokens: Any = fields["tokenizer.ggml.tokens"]
    types: Any = fields["tokenizer.ggml.token_type"]
    assert tokens[-1] == f"[PAD{len(ids) + 4}]"
    assert (types[-1], types[ids["<think>"]], types[ids["<|im_end|>"]]) == (5, 4, 3)
    assert fields["tokenizer.ggml.padding_token_id"] == ids["<|endoftext|>"]
    assert fields["tokenizer.ggml.unknown_token_id"] == ids["<|endoftext|>"]


def test_added_tokens_that_the_model_has_not_are_left_out(tmp_path: Path) -> None:
    _, judge = byte_bpe("llama-bpe")
    folder = folder_of(tmp_path / "m", judge, eos_token="<|im_end|>", bos_token="<bos>")
    count = len(Tokenizer.from_folder(folder))
    given = json.loads((folder / "tokenizer.json").read_text())
    given["added_tokens"].append({"id": count, "content": "<image_soft_token>", "special": True, "normalized": False})
    (folder / "tokenizer.json").write_text(json.dumps(given))
    assert len(Tokenizer.from_folder(folder)) == count + 1
    tokens: Any = gguf_vocabulary(folder, count, "llama").metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == count
    assert "<image_soft_token>" not in tokens


def llama2(prefix: bool) -> dict[str, Any]:
    """A vocabulary with byte tokens and merges, in the form that Llama 2's has or (no prefix) Gemma 3's."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefgh", "\n"]
    merges = [("a", "b"), ("▁", "ab"), ("c", "d"), ("ab", "cd"), ("▁ab", "cd"), ("▁", "▁"), ("e", "f")]
    texts += ["".join(pair) for pair in merges]
    before = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    shown = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    special = [{"id": i, "content": texts[i], "special": True, "normalized": False} for i in range(3)]
    user = {"id": len(texts), "content": "▁▁▁", "special": False, "normalized": True}
    return {
        "added_tokens": special if prefix else [*special, user],
        "normalizer": {"type": "Sequence", "normalizers": [*before, spaces]},
        "decoder": {"type": "Sequence", "decoders": [shown, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": {
            "type": "BPE", "unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True,
            "vocab": {text: i for i, text in enumerate(texts)}, "merges": [" ".join(pair) for pair in merges],
        },
    }  # fmt: skip


@pytest.mark.parametrize("prefix", [True, False])
def test_vocabularies_of_sentencepiece(prefix: bool, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", llama2(prefix), bos_token="<s>", eos_token="</s>", add_bos_token=True)
    given = gguf_vocabulary(folder, 300, "llama")
    fields = given.metadata
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.add_space_prefix"]) == ("llama", prefix)
    made, original = Tokenizer.from_metadata(fields), Tokenizer.from_folder(folder)
    for text in [*CORPUS, "abcd ab cd efab", "  ab", "ba dc", "é\n\n", "abab  cdcd"]:
        assert made.encode(text) == original.encode(text)
        assert made.decode(made.encode(text)) == text
    types: Any = fields["tokenizer.ggml.token_type"]
    assert types[:4] == [2, 3, 3, 6]
    scores: Any = fields["tokenizer.ggml.scores"]
    ranked = [scores[original.id_of(text)] for text in ("ab", "▁ab", "cd", "abcd", "▁abcd")]
    assert ranked == sorted(ranked, reverse=True)


def test_sentencepieces_own_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model_file())
    given = gguf_vocabulary(tmp_path, len(PIECES) + 3, "llama")
    made, original = Tokenizer.from_metadata(given.metadata), Tokenizer.from_folder(tmp_path)
    for text in (*CORPUS, "the   x", "a  xb", "hethe"):
        assert made.encode(text) == original.encode(text)
    scores: Any = given.metadata["tokenizer.ggml.scores"]
    assert scores[:-3].tolist() == [score if kind != 4 else 0.0 for _, score, kind in PIECES]
    assert given.types["tokenizer.ggml.scores"] == "float32[]"


def test_ranks_of_tekken_become_merges(tmp_path: Path) -> None:
    _, judge = byte_bpe("tekken")
    plain = [text for text, _ in sorted(judge.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])]
    words = [bytes(BYTE_OF_CHARACTER[c] for c in text) for text in plain]
    vocab = [{"rank": i, "token_bytes": base64.b64encode(word).decode()} for i, word in enumerate(words)]
    config = {"pattern": TEKKEN, "default_vocab_size": 100 + len(vocab), "default_num_special_tokens": 100}
    (tmp_path / "tekken.json").write_text(json.dumps({"config": config, "vocab": vocab}))
    fields = gguf_vocabulary(tmp_path, 100 + len(vocab), "mistral3").metadata
    assert fields["tokenizer.ggml.pre"] == "tekken"
    made, original = Tokenizer.from_metadata(fields), Tokenizer.from_folder(tmp_path)
    assert [made.encode(text) for text in CORPUS] == [original.encode(text) for text in CORPUS]
    assert made.adds_bos


def test_gemma4s_merges_stay(tmp_path: Path) -> None:
    _, judge = gemma4()
    folder = folder_of(tmp_path / "m", judge)
    fields = gguf_vocabulary(folder, judge.get_vocab_size(), "gemma4").metadata
    assert fields["tokenizer.ggml.model"] == "gemma4"
    made, original = Tokenizer.from_metadata(fields), Tokenizer.from_folder(folder)
    assert [made.encode(text, add_special=False) for text in CORPUS] == [
        original.encode(text, add_special=False) for text in CORPUS
    ]


def test_ends_of_answers_that_have_no_text_of_their_own(tmp_path: Path) -> None:
    _, judge = byte_bpe("qwen2")
    folder = folder_of(tmp_path / "m", judge, eos_token="<|im_end|>")
    ends = [judge.token_to_id(text) for text in ("<|im_end|>", "the", "qu", "is")]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [i for i in ends if i is not None]}))
    given = gguf_vocabulary(folder, judge.get_vocab_size(), "llama")
    lacking = (
        Tokenizer.from_folder(folder).end_of_generation - Tokenizer.from_metadata(given.metadata).end_of_generation
    )
    assert len(given.remarks) == bool(lacking)


def test_other_kinds_are_named(tmp_path: Path) -> None:
    whole = llama2(True)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model": {"type": "WordPiece", "unk_token": "a", "vocab": {"a": 0}}}, "model WordPiece"),
        ({**whole, "normalizer": {"type": "Lowercase"}}, "its tokenizer is none that GGUF has"),
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    odd = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, level]}
    cases.append(({**whole, "decoder": {"type": "ByteLevel"}, "pre_tokenizer": odd, "normalizer": None}, "no name in"))
    for given, message in cases:
        folder = folder_of(tmp_path / "m", given)
        with pytest.raises(ModelError, match=message):
            gguf_vocabulary(folder, 400, "llama")
    with pytest.raises(ModelError, match="the model has logits for 7 tokens, but its tokenizer has"):
        gguf_vocabulary(folder_of(tmp_path / "m", whole), 7, "llama")
    (tmp_path / "m" / "tokenizer.json").unlink()
    with pytest.raises(FormatError, match=r"tokenizer\.json: is missing"):
        gguf_vocabulary(tmp_path / "m", 400, "llama")
