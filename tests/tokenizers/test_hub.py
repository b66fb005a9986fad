"""tokenizer.json as a whole: ids and texts equal those of the library `tokenizers`, whose files these are."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokenizers.conftest import CONTROL, CORPUS, USER, byte_bpe, gemma4

from sotol.errors import FormatError, ModelError
from sotol.tokenizers import StreamDecoder, Tokenizer
from sotol.tokenizers.provenance import joined, trusted
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Judge

JUDGES: dict[str, Any] = json.loads((Path(__file__).parent / "pretokenizers.json").read_text())
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
CONTROLS = [AddedToken(text, special=True, normalized=False) for text in CONTROL]
WORDS = [
    "<think>",
    "▁",
    "\u2581\u2581",
    "a",
    "B",
    "the ",
    " ",
    "  \t",
    "\n",
    "'s",
    "12",
    "é",
    "漢字",
    "한국",
    "😀",
    ".",
    "Σ",
]
TEXTS = st.lists(
    st.sampled_from(WORDS) | st.characters(codec="utf-8", max_codepoint=0x2FFF, exclude_categories=["Cs", "Cn"]),
    max_size=20,
).map("".join)


def trained(judge: Judge, trainer: Any) -> Judge:
    judge.train_from_iterator(CORPUS * 3, trainer)
    return judge


def sentencepiece() -> Judge:
    """Llama 2's form: a space before each text, written as ▁; bytes where a character has no token."""
    learner = Judge(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    trained(learner, trainers.BpeTrainer(vocab_size=400, limit_alphabet=100, show_progress=False))
    model = json.loads(learner.to_str())["model"]
    vocabulary = {text: i for i, text in enumerate(["<unk>", *BYTES, *model["vocab"]])}
    merges = [tuple(pair) for pair in model["merges"]]
    judge = Judge(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    judge.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    judge.decoder = decoders.Sequence(steps)
    return judge


def unigram(*, falls: bool) -> Judge:
    learner = Judge(models.Unigram())
    learner.normalizer = normalizers.NFKC()
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if falls else "always")
    trainer = trainers.UnigramTrainer(vocab_size=420, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    trained(learner, trainer)
    if not falls:
        learner.decoder = decoders.Metaspace()
        return learner
    given = json.loads(learner.to_str())
    given["model"]["vocab"] += [[text, -20.0] for text in BYTES]
    given["model"]["byte_fallback"] = True
    judge = Judge.from_str(json.dumps(given))
    judge.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return judge


def word_piece() -> Judge:
    judge = Judge(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=12))
    judge.normalizer, judge.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    judge.decoder = decoders.WordPiece()
    trained(
        judge,
        trainers.WordPieceTrainer(vocab_size=600, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False),
    )
    around = [(text, judge.token_to_id(text)) for text in ("[CLS]", "[SEP]")]
    judge.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=around)
    return judge


def word_level() -> Judge:
    judge = Judge(models.WordLevel(unk_token="[UNK]"))
    judge.pre_tokenizer = pre_tokenizers.Whitespace()
    return trained(judge, trainers.WordLevelTrainer(vocab_size=90, special_tokens=["[UNK]"], show_progress=False))


def ends_of_words() -> Judge:
    """The form of GPT and CLIP."""
    judge = Judge(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    judge.normalizer, judge.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    return trained(judge, trainer)


def byte_level_normalizer() -> Judge:
    judge = Judge(models.BPE(ignore_merges=True))
    judge.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.ByteLevel()])
    judge.pre_tokenizer = pre_tokenizers.Split("Ġ", "merged_with_next")
    judge.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return trained(judge, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False))


MAKERS: dict[str, Callable[[], Judge]] = {
    **{name: lambda name=name: byte_bpe(name)[1] for name in JUDGES},  # type: ignore[misc]
    "gemma4": lambda: gemma4()[1],
    "sentencepiece": sentencepiece,
    "unigram": lambda: unigram(falls=False),
    "unigram with bytes": lambda: unigram(falls=True),
    "word piece": word_piece,
    "word level": word_level,
    "ends of words": ends_of_words,
    "byte-level normalizer": byte_level_normalizer,
}
DECODED = [*JUDGES, "gemma4", "sentencepiece", "unigram with bytes", "byte-level normalizer"]  # the same text again


def folder_of(folder: Path, judge: Judge, **files: object) -> Path:
    """A folder with the tokenizer, and other files by name."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "tokenizer.json").write_text(judge.to_str())
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Tokenizer, Judge]]:
    """A tokenizer of the table, for sotol and for the library."""

    @cache
    def make(name: str) -> tuple[Tokenizer, Judge]:
        judge = MAKERS[name]()
        judge.add_special_tokens(CONTROLS)
        judge.add_tokens([AddedToken(text, normalized=False) for text in USER])
        return Tokenizer.from_folder(folder_of(tmp_path_factory.mktemp("x"), judge)), judge

    return make


def same(tokenizer: Tokenizer, judge: Judge, text: str) -> None:
    """Ids of a text with control tokens in it, and as plain text; what they stand for, at once and piece by piece."""
    judge.encode_special_tokens = False
    ids = judge.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text, special=True, add_special=False) == ids
    assert tokenizer.encode(text, special=True) == judge.encode(text).ids
    judge.encode_special_tokens = True
    plain = judge.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text, add_special=False) == plain
    stream = StreamDecoder(tokenizer, special=True)
    assert "".join(map(stream.push, ids)) + stream.finish() == tokenizer.decode(ids, special=True)
    assert b"".join(tokenizer.token_bytes(i, special=True) for i in ids) == tokenizer.join(ids, special=True)


@pytest.mark.parametrize("name", MAKERS)
def test_a_corpus_of_many_languages(
    name: str, both: Callable[[str], tuple[Tokenizer, Judge]], corpus: list[str]
) -> None:
    tokenizer, judge = both(name)
    for text in [*corpus, "", " ", "a<|im_end|>b <think> c", "<|im_start|>user\n<bos>x", "<eos>", "▁▁ ▁", "☃☃ ☃"]:
        same(tokenizer, judge, text)
    assert len(tokenizer) == judge.get_vocab_size()
    for i in range(len(tokenizer)):
        assert tokenizer.id_of(str(judge.id_to_token(i))) == i


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40)
@given(text=TEXTS)
def test_any_text(name: str, both: Callable[[str], tuple[Tokenizer, Judge]], text: str) -> None:
    same(*both(name), text)


@pytest.mark.parametrize("name", DECODED)
def test_texts_come_back(name: str, both: Callable[[str], tuple[Tokenizer, Judge]], corpus: list[str]) -> None:
    tokenizer, judge = both(name)
    for text in corpus:
        ids = tokenizer.encode(text, add_special=False)
        assert tokenizer.decode(ids) == judge.decode(ids, skip_special_tokens=True)
        if name not in ("unigram with bytes", "byte-level normalizer"):  # which normalize
            assert tokenizer.decode(ids) == text


# ---- added tokens


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize(
    "flags", [{"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}, {"single_word": True}]
)
def test_tokens_that_take_part_of_what_surrounds_them(flags: dict[str, bool], special: bool, tmp_path: Path) -> None:
    judge = sentencepiece()
    token = AddedToken("<mask>", special=special, normalized=False, **flags)
    (judge.add_special_tokens if special else judge.add_tokens)([token])
    tokenizer = Tokenizer.from_folder(folder_of(tmp_path, judge))
    texts = [
        "a <mask> b",
        "a<mask>b",
        " <mask>  <mask> ",
        "<mask>",
        "\n<mask>\t\u3000x",
        "a_<mask>",
        "<mask>9",
        "é<mask>.",
        "\u200d<mask>",
        "½<mask>½",
        "<mask>\u0301",
        "Ⅳ<mask>",
    ]
    for text in texts:
        assert tokenizer.encode(text, special=True) == judge.encode(text).ids, text


def test_tokens_of_the_normalized_text(tmp_path: Path) -> None:
    judge = Judge(models.BPE())
    judge.normalizer, judge.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained(judge, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    judge.add_tokens([AddedToken("Yes!", normalized=True), AddedToken("No!", normalized=False)])
    tokenizer = Tokenizer.from_folder(folder_of(tmp_path, judge))
    for text in ("yes! no!", "YES! NO!", "Yes! No!", "aYes!bNo!c"):
        assert tokenizer.encode(text) == judge.encode(text).ids


def test_what_a_user_writes_is_no_control_token(both: Callable[[str], tuple[Tokenizer, Judge]]) -> None:
    tokenizer, _ = both("qwen2")
    end = tokenizer.id_of("<|im_end|>")
    assert end in tokenizer.end_of_generation
    assert tokenizer.encode("a<|im_end|>", special=True)[-1] == end
    assert end not in tokenizer.encode("a<|im_end|>")
    written = joined([trusted("<|im_start|>"), "a<|im_end|>", trusted("<|im_end|>")])
    ids = tokenizer.encode(written, special=True)
    assert (ids[0], ids.count(end), ids[-1]) == (tokenizer.id_of("<|im_start|>"), 1, end)
    assert tokenizer.decode(ids) == "a<|im_end|>"


def test_unigram_spells_no_control_token(both: Callable[[str], tuple[Tokenizer, Judge]]) -> None:
    """The library's Unigram finds these in plain text, too."""
    tokenizer, _ = both("unigram with bytes")
    assert not {tokenizer.id_of(text) for text in ("<unk>", "<0x41>")} & set(tokenizer.encode("<unk> a<0x41>"))


@pytest.mark.parametrize("count", [1, 2, 100_000])
def test_a_run_of_unknown_characters_is_one_token(both: Callable[[str], tuple[Tokenizer, Judge]], count: int) -> None:
    tokenizer, judge = both("unigram")
    text = "the " + "\ua000\ua001" * count + " the"
    ids = tokenizer.encode(text, add_special=False)
    assert ids == judge.encode(text, add_special_tokens=False).ids
    assert ids.count(0) == 1


def test_a_mark_of_a_turn_is_control_even_if_it_is_said_to_be_text(tmp_path: Path) -> None:
    judge = sentencepiece()
    judge.add_tokens([AddedToken("<|im_end|>", normalized=False), AddedToken("<tool>", normalized=False)])
    tokenizer = Tokenizer.from_folder(folder_of(tmp_path, judge))
    assert tokenizer.id_of("<|im_end|>") in tokenizer.end_of_generation
    assert tokenizer.id_of("<|im_end|>") not in tokenizer.encode("<|im_end|><tool>")
    assert tokenizer.id_of("<tool>") in tokenizer.encode("<|im_end|><tool>")


# ---- the files beside


def test_special_tokens_of_the_files_beside(tmp_path: Path) -> None:
    judge = sentencepiece()
    judge.add_special_tokens(CONTROLS)
    ids = {text: judge.token_to_id(text) for text in CONTROL}
    config = {"bos_token": {"content": "<bos>"}, "eos_token": "<eos>", "add_bos_token": True, "add_eos_token": True}
    files: dict[str, object] = {
        "tokenizer_config": {**config, "added_tokens_decoder": {"900": {"content": "<late>", "special": True}}},
        "generation_config": {"eos_token_id": [ids["<|im_start|>"], 5]},
        "config": {"eos_token_id": 7},
    }
    tokenizer = Tokenizer.from_folder(folder_of(tmp_path / "a", judge, **files))
    assert (tokenizer.bos, tokenizer.eos) == (ids["<bos>"], ids["<eos>"])
    assert (tokenizer.adds_bos, tokenizer.adds_eos) == (True, True)
    assert {ids["<|im_start|>"], ids["<eos>"], 5, 7} <= tokenizer.end_of_generation
    assert tokenizer.encode("")[0::1] == [ids["<bos>"], ids["<eos>"]]
    assert tokenizer.encode("<late>", special=True, add_special=False) == [900]
    tokenizer = Tokenizer.from_folder(folder_of(tmp_path / "b", judge, special_tokens_map={"bos_token": "<bos>"}))
    assert (tokenizer.bos, tokenizer.eos, tokenizer.adds_bos) == (ids["<bos>"], None, False)
    tokenizer = Tokenizer.from_folder(folder_of(tmp_path / "c", judge, config={"bos_token_id": 3, "eos_token_id": 4}))
    assert (tokenizer.bos, tokenizer.eos) == (3, 4)


def test_what_the_files_beside_have_wrong_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files: dict[str, object] = {"tokenizer_config": {"bos_token": "<nowhere>"}, "config": {"eos_token_id": 123456}}
    tokenizer = Tokenizer.from_folder(folder_of(tmp_path, sentencepiece(), **files))
    assert (tokenizer.bos, tokenizer.eos) == (None, None)
    assert "bos_token is '<nowhere>', which is not in the vocabulary" in caplog.text
    assert "eos_token_id has 123456, which is not in the vocabulary" in caplog.text


def test_a_template_without_bos_where_the_config_wants_none(tmp_path: Path) -> None:
    judge = sentencepiece()
    judge.add_special_tokens(CONTROLS)
    around = [("<bos>", judge.token_to_id("<bos>"))]
    judge.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=around)
    config = {"bos_token": "<bos>"}
    tokenizer = Tokenizer.from_folder(folder_of(tmp_path, judge, tokenizer_config=config))
    assert (tokenizer.adds_bos, tokenizer.encode("a")) == (True, judge.encode("a").ids)
    folder_of(tmp_path, judge, tokenizer_config={**config, "add_bos_token": False})
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert (tokenizer.adds_bos, tokenizer.encode("a")) == (False, judge.encode("a").ids[1:])


def test_ids_that_the_model_has_besides(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder_of(tmp_path, word_level()), logits=200)
    assert tokenizer.token_bytes(199) == b""
    with pytest.raises(ValueError, match="token id 200 is not in the vocabulary"):
        tokenizer.token_bytes(200)


def test_added_tokens_that_the_model_has_not(tmp_path: Path) -> None:
    """Gemma 3's text models have an image's token behind their last: it is plain text, as it would be without."""
    count = len(PLAIN["model"]["vocab"])
    added = [{"id": count + i, "content": text, "special": True} for i, text in enumerate(("<bos>", "<image>"))]
    config = {"added_tokens_decoder": {str(count + 2): {"content": "<audio>", "special": True}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    folder = given_file(tmp_path, {**PLAIN, "added_tokens": added})
    assert len(Tokenizer.from_folder(folder)) == count + 3
    tokenizer = Tokenizer.from_folder(folder, logits=count + 1)
    assert len(tokenizer) == count + 1
    assert tokenizer.encode("ab<image><bos>b", special=True) == [2, 0, 3, 1]  # "<image>" has no token but its a's
    assert Tokenizer.from_folder(folder, logits=count - 1).encode("ab") == [2]  # its own tokens stay


# ---- what is not supported, and what is wrong

PLAIN: dict[str, Any] = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}


def given_file(folder: Path, value: object) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(value))
    return folder


def test_all_that_is_missing_is_one_error(tmp_path: Path) -> None:
    value = {
        "model": {**PLAIN["model"], "dropout": 0.5},
        "normalizer": {"type": "Nmt"},
        "pre_tokenizer": {"type": "UnicodeScripts"},
        "decoder": {"type": "CTC"},
        "post_processor": {"type": "Odd"},
    }
    message = (
        f"{tmp_path / 'tokenizer.json'}: sotol does not support normalizer Nmt; pre_tokenizer UnicodeScripts; "
        "decoder CTC; post_processor Odd; model.dropout 0.5"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        Tokenizer.from_folder(given_file(tmp_path, value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 3}, "model is 3, not an object"),
        ({"model": {"type": "BPE", "vocab": []}}, "model.vocab is [], not an object"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, "model.vocab has an id that is not a whole"),
        ({"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}, "model.vocab has an id that is not a whole"),
        (
            {"model": {"type": "BPE", "vocab": {"a": 1 << 40}, "merges": []}},
            "model.vocab has an id that is not a whole",
        ),
        ({"model": {"type": "BPE", "vocab": {"a": 100_000}, "merges": []}}, "has the id 100000, but only 1 tokens"),
        ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, "has no tokens"),
        ({"model": {**PLAIN["model"], "merges": {}}}, "model.merges is {}, not a list"),
        ({"model": {**PLAIN["model"], "merges": ["ab"]}}, "model.merges has 'ab', not two texts and a space"),
        ({"model": {**PLAIN["model"], "merges": [["a"]]}}, "model.merges has ['a'], not two texts"),
        ({"model": {**PLAIN["model"], "merges": [1]}}, "model.merges has 1, not two texts"),
        ({"model": {"type": "Unigram", "vocab": {"a": 1}}}, "model.vocab is {'a': 1}, not a list of texts"),
        ({"model": {"type": "Unigram", "vocab": [["a"]]}}, "model.vocab is [['a']], not a list of texts"),
        ({"added_tokens": 1}, "added_tokens is not a list"),
        ({"added_tokens": [1]}, "added_tokens[0] is 1, not an object"),
        ({"added_tokens": [{"id": 5}]}, "added_tokens[0].content is None, not text"),
        ({"added_tokens": [{"id": 5, "content": ""}]}, "added_tokens[0].content is ''"),
        ({"added_tokens": [{"content": "x"}]}, "added_tokens[0].id is None"),
        ({"added_tokens": [{"id": 0, "content": "x"}]}, "the id 0 is 'a' in the model's vocabulary, and 'x' in added"),
        ({"added_tokens": [{"id": 5, "content": "x"}, {"id": 5, "content": "y"}]}, "added_tokens[1].id is 5"),
        ({"added_tokens": [{"id": 1 << 30, "content": "x"}]}, "has the id 1073741824, but only 4 tokens"),
        ({"post_processor": {"type": "TemplateProcessing"}}, "post_processor.special_tokens is None, not an object"),
        (
            {"post_processor": {"type": "TemplateProcessing", "special_tokens": {}, "single": []}},
            "post_processor.single is [], not a template with the sequence A",
        ),
        (
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "special_tokens": {"x": {"ids": [77]}},
                    "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}],
                }
            },
            "post_processor has the id 77, which is not in the vocabulary",
        ),
        (
            {"post_processor": {"type": "BertProcessing", "cls": ["a", 1], "sep": ["b", 1]}},
            "post_processor.cls is ['a', 1], not a token of the vocabulary with its id",
        ),
    ],
)
def test_what_is_wrong(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=re.escape(f"{tmp_path / 'tokenizer.json'}: {message}")) as error:
        Tokenizer.from_folder(given_file(tmp_path, {**PLAIN, **change}))
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"tokenizer\.json: is missing, so the model has no tokenizer$"):
        Tokenizer.from_folder(tmp_path)
