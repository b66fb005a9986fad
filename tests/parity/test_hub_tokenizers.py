"""Real tokenizer.json files against `tokenizers` and `transformers`, and a real SafeTensors file against its library.

`SOTOL_PARITY` names a folder with `tokenizers/`, which has a folder with tokenizer.json for each: `bench/parity.sh`.
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokenizers.conftest import CORPUS

from sotol.formats import read_model
from sotol.formats.checkpoint_folder import described
from sotol.formats.folder import Folder
from sotol.tokenizers import StreamDecoder, Tokenizer
from sotol.tokenizers.chat import ChatTemplate
from tokenizers import Tokenizer as Judge

ROOT = Path(os.environ.get("SOTOL_PARITY", "")) / "tokenizers"
FOLDERS = sorted(path.parent for path in ROOT.rglob("tokenizer.json")) if os.environ.get("SOTOL_PARITY") else []
if not FOLDERS:
    pytest.skip("no tokenizers: SOTOL_PARITY names no folder with tokenizers/*/tokenizer.json", allow_module_level=True)

LONG = (Path(__file__).parents[1] / "data" / "text.txt").read_text()
PIECES = [
    "<|im_end|>",
    "<s>",
    "[INST]",
    "▁",
    " ",
    "  ",
    "\n",
    "\n\n\n",
    "\t",
    "'s",
    "'LL",
    "1234567",
    "½",
    "é",
    "漢字",
    "한국",
    "😀",
]
TEXTS = st.lists(
    st.sampled_from(PIECES) | st.characters(codec="utf-8", max_codepoint=0x2FFF, exclude_categories=["Cs", "Cn"]),
    max_size=30,
).map("".join)


def name_of(folder: Path) -> str:
    return str(folder.relative_to(ROOT)).replace("/", "-")


@cache
def load(folder: Path) -> tuple[Tokenizer, Judge]:
    judge = Judge.from_file(str(folder / "tokenizer.json"))
    judge.no_truncation()
    judge.no_padding()
    return Tokenizer.from_folder(folder), judge


def check(folder: Path, text: str) -> None:
    tokenizer, judge = load(folder)
    judge.encode_special_tokens = False
    ids = judge.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text, special=True, add_special=False) == ids
    assert tokenizer.decode(ids, special=True) == judge.decode(ids, skip_special_tokens=False)
    stream = StreamDecoder(tokenizer)
    plain = "".join(map(stream.push, ids)) + stream.finish()
    assert plain == tokenizer.decode(ids)
    judge.encode_special_tokens = True
    assert tokenizer.encode(text, add_special=False) == judge.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_a_corpus_of_many_languages(folder: Path) -> None:
    for text in [*CORPUS, "".join(CORPUS), "\n".join(CORPUS), LONG, "", " ", "a <s>b</s> <|im_start|>user\n"]:
        check(folder, text)


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
@settings(max_examples=200)
@given(text=TEXTS)
def test_any_text(folder: Path, text: str) -> None:
    tokenizer, judge = load(folder)
    judge.encode_special_tokens = False
    ids = judge.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text, special=True, add_special=False) == ids
    assert tokenizer.decode(ids, special=True) == judge.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_every_token_is_the_librarys(folder: Path) -> None:
    tokenizer, judge = load(folder)
    vocabulary = judge.get_vocab(with_added_tokens=True)
    assert {text: tokenizer.id_of(text) for text in vocabulary} == vocabulary


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_texts_and_chats_as_transformers_has_them(folder: Path) -> None:
    """Around a text come the ids that its tokenizer class puts there; a conversation has the ids of its template."""
    import transformers

    tokenizer, _ = load(folder)
    try:
        judge: Any = transformers.AutoTokenizer.from_pretrained(folder)
    except (ValueError, OSError) as error:
        pytest.skip(f"transformers can't say what these are without a config.json: {error!s:.60}")
    assert tokenizer.bos == judge.bos_token_id
    assert tokenizer.eos == judge.eos_token_id
    text = "A text, é 漢字"
    metadata = described(Folder(folder))
    expected = judge(text)["input_ids"]
    if tokenizer.adds_bos and expected[0] != tokenizer.bos:  # transformers 5 leaves out what a config says of it
        assert metadata["tokenizer_config"]["add_bos_token"] is True  # type: ignore[index]
        expected = [tokenizer.bos, *expected]
    assert tokenizer.encode(text, special=True) == expected
    if "tokenizer.chat_template" not in metadata:
        return
    texts = [tokenizer.token_text(i) if i is not None else "" for i in (tokenizer.bos, tokenizer.eos)]
    template = ChatTemplate.from_metadata(
        metadata, bos=texts[0], eos=texts[1], architecture="", tokens=lambda _: False, text_of=tokenizer.token_text
    )
    messages = [
        {"role": "user", "content": "Hi <b>"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "é"},
    ]
    expected = judge.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)["input_ids"]
    assert tokenizer.encode(template.render(messages), special=True, add_special=False) == expected


def test_a_real_safetensors_file() -> None:
    folders = [folder for folder in FOLDERS if (folder / "model.safetensors").exists()]
    if not folders:
        pytest.skip("none of the folders has weights")
    import safetensors

    for folder in folders:
        checkpoint = read_model(folder)
        with safetensors.safe_open(folder / "model.safetensors", "numpy") as judge:
            assert checkpoint.weights.keys() == set(judge.keys())
            for name, weight in checkpoint.weights.items():
                np.testing.assert_array_equal(weight.decode(), judge.get_tensor(name).astype(np.float32))
        assert checkpoint.metadata["model_type"] == json.loads((folder / "config.json").read_text())["model_type"]


@pytest.mark.parametrize("rule", ["", "Mistral"])
def test_tokenizer_model_as_sentencepiece_has_it(rule: str, tmp_path: Path) -> None:
    """One that the library trains here, and those of packages, which are beside the folders of the others."""
    sentencepiece = pytest.importorskip("sentencepiece")
    files = sorted(ROOT.glob("*.model*")) if rule else [tmp_path / "trained.model"]
    if not rule:
        (tmp_path / "corpus.txt").write_text("\n".join(text for text in LONG.split("\n") if text) * 3)
        sentencepiece.SentencePieceTrainer.train(
            input=str(tmp_path / "corpus.txt"), model_prefix=str(tmp_path / "trained"), vocab_size=600,
            model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
            control_symbols=["[INST]"], minloglevel=2,
        )  # fmt: skip
    if not files:
        pytest.skip("no *.model files")
    for file in files:
        folder = tmp_path / f"folder of {file.name}"
        folder.mkdir()
        (folder / "tokenizer.model").write_bytes(file.read_bytes())
        tokenizer = Tokenizer.from_folder(folder)
        judge = sentencepiece.SentencePieceProcessor(model_file=str(file))
        assert len(tokenizer) == judge.get_piece_size()
        assert (tokenizer.bos, tokenizer.eos) == (judge.bos_id(), judge.eos_id())
        for text in [*CORPUS, LONG, "", " ", "  a", "a [INST] b </s>"]:
            ids = judge.encode(text)
            assert tokenizer.encode(text, add_special=False) == ids, (file, text)
            assert tokenizer.decode(ids) == judge.decode(ids), (file, text)
