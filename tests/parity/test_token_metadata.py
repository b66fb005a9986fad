"""Does llama.cpp take broken metadata as the table says, and real metadata as sotol does?

It runs in a process of its own, for it may end it. `SOTOL_PARITY` names a folder with `vocabularies/*.gguf`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.broken_vocabularies import CASES
from tests.support.checkpoints import random_checkpoint

from sotol.errors import ModelError
from sotol.formats import write_gguf
from sotol.tokenizers import Tokenizer

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")

FILES = sorted(Path(os.environ.get("SOTOL_PARITY", ""), "vocabularies").glob("*.gguf"))
TEXT = "Ends, <s> and <unk>: 12345\n\n  x\t\ty  don't 'LL e\u0301 漢字カナ ½ $1+2=3 ~ | ^ <=> 😀 ___ ..(\"é\") Ünï\n"
# What llama.cpp says of vocabularies: [path, text] lines in, and [ids, ends] lines out.
JUDGE = """
import json, sys
import llama_cpp as l
l.llama_backend_init()
options = l.llama_model_default_params()
options.vocab_only = True
for line in sys.stdin:
    path, text = json.loads(line)
    model = l.llama_model_load_from_file(path.encode(), options)
    vocab = l.llama_model_get_vocab(model)
    room = (l.llama_token * 1000)()
    data = text.encode()
    count = l.llama_tokenize(vocab, data, len(data), room, 1000, True, False)
    ends = [i for i in range(l.llama_vocab_n_tokens(vocab)) if l.llama_vocab_is_eog(vocab, i)]
    print(json.dumps([room[:count], ends]), flush=True)
"""
TYPES = {"tokenizer.ggml.token_type": "int32[]", "tokenizer.ggml.scores": "float32[]"}


def judged(path: Path, text: str) -> Any:
    """The ids and ends that llama.cpp gives, or None where it does not load the file or ends its process."""
    line = json.dumps([str(path), text])
    run = subprocess.run([sys.executable, "-c", JUDGE], input=line, capture_output=True, text=True, check=False)
    return json.loads(run.stdout) if run.returncode == 0 else None


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_does_the_same(name: str, tmp_path: Path) -> None:
    case, path = CASES[name], tmp_path / "vocabulary.gguf"
    metadata = {**random_checkpoint("llama", seed=0).metadata, **case.fields}
    write_gguf(path, metadata, [], types={key: kind for key, kind in TYPES.items() if key in metadata})
    tokenizer = Tokenizer.from_gguf(path)
    ours = [tokenizer.encode(case.text), sorted(tokenizer.end_of_generation)]
    assert (judged(path, case.text) == ours) == case.llama_cpp


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem.removeprefix("ggml-vocab-"))
def test_ends_of_real_vocabularies(path: Path) -> None:
    try:
        tokenizer = Tokenizer.from_gguf(path)
    except ModelError:
        pytest.skip("sotol does not read this kind of vocabulary")
    ids, ends = judged(path, TEXT)
    html = tokenizer.id_of("</s>")  # which llama.cpp takes as an end in any vocabulary
    assert tokenizer.encode(TEXT) == ids
    assert tokenizer.end_of_generation | ({html} & set(ends)) == set(ends)
