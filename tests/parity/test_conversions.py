"""What `sotol convert` writes, judged by those it is for: llama.cpp runs the files, `transformers` the folders.

Tiny random models go all the way: as `save_pretrained` writes them, to GGUF, and back to a folder. Real tokenizers go
to GGUF, where llama.cpp gives the same ids. `SOTOL_PARITY` names a folder with `tokenizers/`: `bench/parity.sh`.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import category, normalize

import numpy as np
import numpy.typing as npt
import pytest
from bench.accuracy import TEXT as ACCURACY_TEXT
from bench.accuracy import llama_cpp_logits, mean_kl, sotol_logits, text_ids
from tests.parity.cases.case import VOCABULARY, Case
from tests.parity.test_architectures import CASES, GELU, TOLERANCE, random_model, worst
from tests.parity.test_real_models import gemma3, smollm2
from tests.parity.test_token_metadata import TEXT, judged
from tests.support.checkpoints import random_checkpoint
from tests.tokenizers.conftest import CORPUS

from sotol.errors import ModelError
from sotol.formats import read_gguf, write_gguf
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.roles import FILL_ENDS
from sotol.tools.converting import convert
from sotol.tools.gguf_vocabulary import gguf_vocabulary
from sotol.tools.hub_config import MODELS
from sotol.tools.hub_vocabulary import hub_vocabulary
from sotol.tools.parts import split_file

torch = pytest.importorskip("torch", reason="torch is not installed: `make parity` has it")
transformers = pytest.importorskip("transformers")

WORDS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "▁", *map(chr, range(33, 123))]
FIELDS: dict[str, object] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": WORDS,
    "tokenizer.ggml.token_type": [2, *[3] * 4, *[1] * (len(WORDS) - 5)],
    "tokenizer.ggml.scores": np.full(len(WORDS), -1.0, np.float32),
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}
GEMMA4 = {
    **{key: value for key, value in FIELDS.items() if not key.endswith("scores")},
    "tokenizer.ggml.model": "gemma4",
    "tokenizer.ggml.tokens": [*WORDS[:-1], "th"],
    "tokenizer.ggml.merges": ["t h"],
}
# Without a model for causal language modelling of their own, or with more in config.json than sotol's case.
ONE_WAY = [case for case in CASES if not case.text]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Converted:
    """A model as a folder, as a GGUF file and as a folder again, the ids of a prompt, and their logits [T, V]."""

    case: Case
    file: Path
    again: Path
    ids: list[int]
    logits: Array


@pytest.fixture(scope="module", params=ONE_WAY, ids=lambda case: case.name)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    case: Case = request.param
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("converted")
    folder, file, again = place / "folder", place / "model.gguf", place / "again"
    model = random_model(case)
    model.save_pretrained(folder)
    fields = GEMMA4 if case.architecture == "gemma4" else FIELDS
    whole, config = hub_vocabulary(fields, Tokenizer.from_metadata(fields))
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if not case.in_gguf:
        with pytest.raises(ModelError):
            convert(folder, file)
        pytest.skip("GGUF can't say all of it, and convert says so")
    convert(folder, file)
    ids = np.random.default_rng(7).integers(0, VOCABULARY, case.tokens)
    with torch.no_grad():
        logits = model(torch.tensor(ids)[None]).logits[0].numpy()
    if case.architecture in MODELS:
        convert(file, again)
    return Converted(case, file, again, ids.tolist(), logits)


def test_llama_cpp_runs_the_file(converted: Converted) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")
    if not converted.case.peer:
        pytest.skip("llama.cpp ignores some of it: see test_architectures.py")
    logits = llama_cpp_logits(converted.file, converted.ids, codec="f32", threads=1)
    assert worst(logits, converted.logits) <= (5e-3 if converted.case.architecture in GELU else TOLERANCE)


def test_transformers_runs_the_folder(converted: Converted) -> None:
    if converted.case.architecture not in MODELS:
        pytest.skip("sotol does not write folders of this architecture")
    load = transformers.AutoModelForCausalLM.from_pretrained
    model, notes = load(
        converted.again,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    assert not notes["missing_keys"]
    assert not notes["unexpected_keys"]
    with torch.no_grad():
        logits = model.eval()(torch.tensor(converted.ids)[None]).logits[0].numpy()
    assert worst(logits, converted.logits) <= TOLERANCE


def test_transformers_gives_the_ids(converted: Converted) -> None:
    if converted.case.architecture not in MODELS:
        pytest.skip("sotol does not write folders of this architecture")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(converted.again)  # Qwen's own class is byte-level
    ours = Tokenizer.from_gguf(converted.file)
    text = "What they say: (a+b)*c = 12345; it's so.  Two."
    assert tokenizer(text)["input_ids"] == ours.encode(text)
    assert tokenizer.eos_token_id == ours.eos


ROOT = Path(os.environ.get("SOTOL_PARITY", "")) / "tokenizers"
FOLDERS = sorted(path.parent for path in ROOT.rglob("tokenizer.json")) if os.environ.get("SOTOL_PARITY") else []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_llama_cpp_gives_the_ids_of_real_tokenizers(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")
    original = Tokenizer.from_folder(folder)
    if original.kind != "BPE":
        with pytest.raises(ModelError, match="its tokenizer is none that GGUF has: model WordPiece"):
            gguf_vocabulary(folder, len(original), "llama")
        return
    given = gguf_vocabulary(folder, len(original) + 3, "llama")
    path = tmp_path / "vocabulary.gguf"
    write_gguf(path, {**random_checkpoint("llama").metadata, **given.metadata}, [], types=given.types)
    made = Tokenizer.from_gguf(path)
    for text in (TEXT, "\n".join(CORPUS[:4]), "\n".join(CORPUS[4:])):
        text = normalize("NFC", text)  # which Qwen's tokenizer does itself, and GGUF can't say
        if given.metadata["tokenizer.ggml.pre"] == "gpt-4o":  # llama.cpp cuts before marks, the model does not
            text = "".join(c for c in text if category(c)[0] != "M")
        ids, ends = judged(path, text)
        assert made.encode(text) == ids
        assert original.encode(text) == ids
    assert made.end_of_generation == original.end_of_generation <= set(ends)
    # llama.cpp takes more for ends, by their texts alone: "</s>" in any vocabulary, marks of completions within a text.
    others = {made.token_text(i) for i in set(ends) - made.end_of_generation}
    assert others <= {"</s>", *frozenset[str]().union(*FILL_ENDS.values())}


# llama.cpp's own file of the same vocabulary -> the folder.
SAME = {"ggml-vocab-llama-bpe.gguf": "llama3_1", "ggml-vocab-qwen2.gguf": "qwen3"}
ORDINARY = 128000  # tokens of either that the other release has, too


@pytest.mark.parametrize("name", SAME)
def test_tokens_and_merges_are_those_of_llama_cpps_files(name: str) -> None:
    path = ROOT.parent / "vocabularies" / name
    if not path.exists():
        pytest.skip("SOTOL_PARITY names no folder with vocabularies/*.gguf and tokenizers/")
    theirs: dict[str, Any] = dict(read_gguf(path).metadata)
    (folder,) = [folder for folder in FOLDERS if SAME[name] in folder.parts]
    ours = gguf_vocabulary(folder, len(Tokenizer.from_folder(folder)), "llama").metadata
    for key in ("tokens", "token_type"):
        said: Any = ours[f"tokenizer.ggml.{key}"]
        assert said[:ORDINARY] == theirs[f"tokenizer.ggml.{key}"][:ORDINARY]
    assert ours["tokenizer.ggml.merges"] == theirs["tokenizer.ggml.merges"]
    assert ours["tokenizer.ggml.pre"] == theirs["tokenizer.ggml.pre"]


@pytest.mark.parametrize("find", [smollm2, gemma3], ids=lambda find: find.__name__)
def test_a_real_model_there_and_back(find: Callable[[], Path], tmp_path: Path) -> None:
    """`transformers` runs the folder as sotol runs the file; llama.cpp gives the same ids for the file made of it."""
    model, folder, again = find(), tmp_path / "folder", tmp_path / "again.gguf"
    convert(model, folder, "F32")
    ids = text_ids(model, ACCURACY_TEXT.read_text())[:64]
    text_model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = text_model(torch.tensor(ids)[None]).logits[0].numpy()
    assert mean_kl(theirs, sotol_logits(model, ids, precision="f32")) < 1e-5
    text = CORPUS[0] + CORPUS[1]
    assert transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == Tokenizer.from_gguf(model).encode(
        text
    )
    convert(folder, again, "F16")
    assert judged(again, text)[0] == Tokenizer.from_gguf(model).encode(text)
    assert mean_kl(theirs, llama_cpp_logits(again, ids, codec="f32", threads=1)) < 1e-3


def test_llama_cpp_runs_parts(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")
    model = random_checkpoint("llama", {"attention.key_length": 16, "rope.dimension_count": 16})
    needed = {"tokenizer.ggml.model": "none", "llama.vocab_size": 48}
    write_gguf(tmp_path / "m.gguf", {**model.metadata, **needed}, model.weights.values())
    parts = split_file(tmp_path / "m.gguf", tmp_path / "parts", part_weights=7)
    assert len(parts) == 3
    ids = list(range(1, 20))
    whole, in_parts = (llama_cpp_logits(path, ids, codec="f32", threads=1) for path in (tmp_path / "m.gguf", parts[0]))
    np.testing.assert_array_equal(whole, in_parts)
