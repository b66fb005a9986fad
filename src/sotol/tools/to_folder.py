"""A GGUF file to a folder of Hugging Face's kind: config.json, SafeTensors in a float type, tokenizer.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sotol.backends.cpu.running.fitting import Encoder
from sotol.errors import ModelError
from sotol.formats import Checkpoint, read_model
from sotol.formats.files import files_of
from sotol.formats.safetensors_writer import write_safetensors
from sotol.formats.whole_file import WholeFile, check_room, whole_folder
from sotol.models import ARCHITECTURES, architecture_of, check_is_model, module_of
from sotol.models.binding.bind import Config, renamed
from sotol.models.binding.metadata import Metadata
from sotol.progress import Progress
from sotol.tokenizers import Tokenizer
from sotol.tools.counting import ByteCount
from sotol.tools.encoding import default_encoding
from sotol.tools.encoding_threads import EncodingThreads
from sotol.tools.hub_config import hub_config
from sotol.tools.hub_vocabulary import hub_vocabulary
from sotol.tools.hub_weights import hub_tensors
from sotol.tools.pretokenizer_names import PROBE
from sotol.tools.same_programs import check_same_model
from sotol.tools.same_tokenizers import UNKNOWN_TOKENS, known_part, tokenizer_difference
from sotol.tools.to_gguf import TEMPLATE, Converted, draft_remarks

__all__ = ["gguf_to_folder"]

SHARD_BYTES = 5 * 10**9  # as transformers 4 had it; larger models get several files
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def gguf_to_folder(
    file: Path,
    out: Path,
    encoding: str | None = None,
    progress: Progress | None = None,
    *,
    replace: bool = False,
    shard_bytes: int = SHARD_BYTES,
    threads: int | None = None,
) -> Converted:
    """Write the model of a GGUF file to a folder, with its numbers in a float type.

    encoding: F32, F16 or BF16, of matrices; None takes the file's own, F16 where it is none of these. Vectors are F32.
    replace: whether a model's folder may be there already. threads: that encode, as many as there are cores unless
    given. What was written is read again before it takes its place:
    ModelError where it would not be the same model, or is one that sotol can't run or has no such form for.
    """
    checkpoint = read_model(file)
    check_is_model(checkpoint)
    architecture = architecture_of(checkpoint.metadata)
    if architecture is None or architecture not in ARCHITECTURES:
        raise ModelError(f"{file}: architecture {architecture!r:.60} is not one that sotol knows")
    name, module = module_of(architecture, checkpoint)
    facts = Metadata(checkpoint.metadata, architecture)
    config: Config = module.Config.read(facts, renamed(checkpoint, module.WEIGHTS))
    said = hub_config(checkpoint, name, module, config)
    tokenizer = Tokenizer.from_metadata(checkpoint.metadata, str(file))
    target = encoding or default_encoding(checkpoint.weights.values())
    told, sources = ByteCount(progress), files_of(checkpoint.weights.values())
    with EncodingThreads(Encoder(()), threads, told) as encoders:
        tensors = hub_tensors(checkpoint, module.WEIGHTS, config, said["model_type"], target, encoders)
        told.total = sum(tensor.size for tensor in tensors)
        check_room(out.absolute(), [told.total])
        with whole_folder(out, replace=replace) as folder:
            _write_json(folder / "config.json", said | _ends(checkpoint, tokenizer) | {"dtype": DTYPES[target]})
            remarks = _write_tokenizer(folder, checkpoint, tokenizer)
            write_safetensors(folder, tensors, shard_bytes)
            for source in sources:
                source.check()
            check_same_model(checkpoint, read_model(folder))
    return Converted(out, target, len(tensors), (*remarks, *draft_remarks(checkpoint)))


def _ends(checkpoint: Checkpoint, tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokens that begin and end texts, by id."""
    own = [] if tokenizer.eos is None else [tokenizer.eos]
    ends = [*own, *sorted(tokenizer.end_of_generation - set(own))]
    padding = checkpoint.metadata.get("tokenizer.ggml.padding_token_id")
    return {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": padding if isinstance(padding, int) else None,
    }


def _write_tokenizer(folder: Path, checkpoint: Checkpoint, ours: Tokenizer) -> tuple[str, ...]:
    """Write tokenizer.json and what belongs to it; returns what it can't say."""
    metadata, file = checkpoint.metadata, checkpoint.path
    whole, config = hub_vocabulary(metadata, ours)
    _write_json(folder / "tokenizer.json", whole, indent=None)
    if isinstance(context := Metadata(metadata, str(metadata["general.architecture"])).find("context_length"), int):
        config["model_max_length"] = context
    templates = {
        key.removeprefix(TEMPLATE).removeprefix(".") or "default": text
        for key, text in metadata.items()
        if (key == TEMPLATE or key.startswith(f"{TEMPLATE}.")) and isinstance(text, str)
    }
    if len(templates) > 1:
        config["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    elif templates:
        _write_text(folder / "chat_template.jinja", next(iter(templates.values())))
    _write_json(folder / "tokenizer_config.json", config)
    ends = {key: value for key, value in _ends(checkpoint, ours).items() if value is not None}
    _write_json(folder / "generation_config.json", ends)
    theirs = Tokenizer.from_folder(folder)
    falls = whole["model"]["byte_fallback"] or ours.kind == "gpt2"
    if problem := tokenizer_difference(ours, theirs, PROBE if falls else known_part(ours)):
        raise ModelError(f"{file}: its tokenizer has no form in tokenizer.json that sotol knows: {problem}")
    if ours.encode("a") != theirs.encode("a"):
        raise ModelError(f"{file}: tokenizer.json would put other tokens around a text")
    return () if falls else (UNKNOWN_TOKENS,)


def _write_json(path: Path, value: Mapping[str, object], indent: int | None = 2) -> None:
    _write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    with WholeFile(path) as file:
        file.write(text.encode())
