"""The tokenizer of a folder as the `tokenizer.ggml.*` fields of a GGUF file.

A tokenizer.json is parts of any kind; GGUF names whole kinds of tokenizers. So what was found is tried: both tokenizers
must give the same ids of a text, and the same bytes for each id, or the folder's is none that GGUF has. What GGUF can
say in no way is a remark: tokens around a text besides bos and eos, unusual ends of answers. Unicode's normal form, and
which white space belongs to an added token, are left out without one, as by llama.cpp's converter.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sotol.arrays import Int8Array
from sotol.errors import ModelError
from sotol.formats.folder import Folder
from sotol.tokenizers.hub.decoders import read_decoder
from sotol.tokenizers.hub.models import merge_ranks
from sotol.tokenizers.hub.parts import Unsupported
from sotol.tokenizers.hub.read import (
    Pieces,
    parts_of,
    read_added,
    read_hub_tokenizer,
    read_model_file,
    read_settings,
)
from sotol.tokenizers.hub.splitters import read_splitter
from sotol.tokenizers.tokenizer import Tokenizer
from sotol.tokenizers.vocabulary import TokenType, Vocabulary
from sotol.tools.pretokenizer_names import PROBE, pretokenizer_name
from sotol.tools.same_tokenizers import UNKNOWN_TOKENS, known_part, tokenizer_difference

__all__ = ["TokenizerFields", "gguf_vocabulary"]

ARRAY_TYPES = {"tokens": "string[]", "merges": "string[]", "scores": "float32[]", "token_type": "int32[]"}
BYTE_TOKENS = 256  # of a tekken.json: the first ordinary tokens are the bytes
SPACES = "▁"  # a space in SentencePiece's vocabularies


class TokenizerFields(NamedTuple):
    """Metadata by full keys, the types of some of them, and what GGUF can't say, a sentence each."""

    metadata: Mapping[str, object]
    types: Mapping[str, str]
    remarks: tuple[str, ...]


class _Found(NamedTuple):
    """A vocabulary of a folder, what encodes with it, and the fields that its kind has in GGUF: candidates, in order.

    types: of the tokens, as GGUF has them. text: what both are tried with, in the normal form that the folder's
    tokenizer gives it.
    """

    vocabulary: Vocabulary
    tokenizer: Tokenizer
    candidates: Sequence[Mapping[str, object]]
    types: Int8Array
    text: str = PROBE


def gguf_vocabulary(path: Path, logits: int, architecture: str) -> TokenizerFields:
    """The fields for the tokenizer of a folder, or of a file's folder, for a model with so many logits.

    Logits beyond the vocabulary get tokens that say so and are not used, as llama.cpp asks for. Errors as of
    `Tokenizer.from_folder`; ModelError for a tokenizer that GGUF has no name for.
    """
    folder = Folder(path if path.is_dir() else path.parent)
    found = _read(folder, architecture, logits)
    count = len(found.vocabulary.tokens)
    if count > logits:
        raise ModelError(f"{path}: the model has logits for {logits} tokens, but its tokenizer has {count}")
    common = _common(folder, found, logits)
    problems = list[str]()
    for candidate in found.candidates:
        fields = {**candidate, **common}
        if "scores" in candidate:
            lowest = float(np.min(candidate["scores"], initial=0.0)) - 1  # type: ignore[call-overload]
            fields["scores"] = np.concatenate(
                [np.asarray(candidate["scores"], np.float32), np.full(logits - count, lowest, np.float32)]
            )
        made = Tokenizer.from_metadata({f"tokenizer.ggml.{key}": value for key, value in fields.items()}, str(path))
        problems.append(tokenizer_difference(found.tokenizer, made, found.text))
        if not problems[-1]:
            return _finished(found, fields, str(path))
    raise ModelError(f"{path}: its tokenizer is none that GGUF has: {problems[0]}")


# ---- what the folder has


def _read(folder: Folder, architecture: str, logits: int) -> _Found:
    if (of_pieces := read_model_file(folder, logits)) is not None:
        scores = of_pieces.scores.astype(np.float32)
        fields = {
            "model": "llama",
            "pre": "default",
            "scores": scores,
            "add_space_prefix": of_pieces.add_space_prefix is not False,
        }
        return _Found(of_pieces, Tokenizer.of_vocabulary(of_pieces), [fields], of_pieces.types)
    vocabulary, model = read_hub_tokenizer(folder, logits)
    tokenizer = Tokenizer(vocabulary, model)
    file = str(folder.path / "tokenizer.json")
    given = folder.json("tokenizer.json")
    if given is None:  # then it is a tekken.json
        fields = {"model": "gpt2", "pre": "tekken", "merges": _merges_of_ranks(vocabulary)}
        return _Found(vocabulary, tokenizer, [fields], vocabulary.types)
    pieces = parts_of(given, file)
    types = vocabulary.types.copy()
    for added in read_added(given, read_settings(folder), file, logits):
        if types[added.token] == TokenType.NORMAL:  # found in the normalized text: GGUF has no such
            types[added.token] = TokenType.USER_DEFINED
    try:
        candidates = _candidates(pieces, vocabulary, architecture)
    except Unsupported as missing:
        raise ModelError(f"{file}: its tokenizer is none that GGUF has: {missing}") from None
    normalizers = [] if pieces.normalizer is None else pieces.normalizer.all_of("normalizers")
    normal = {part.kind for part in normalizers} == {"NFC"}
    text = unicodedata.normalize("NFC", PROBE) if normal else PROBE
    if candidates[0]["model"] != "gpt2" and TokenType.BYTE not in types:
        text = known_part(tokenizer, text)
    return _Found(vocabulary, tokenizer, candidates, types, text)


def _candidates(pieces: Pieces, vocabulary: Vocabulary, architecture: str) -> list[Mapping[str, object]]:
    """What GGUF may call a tokenizer.json. Unsupported if it has no name for such."""
    if pieces.model.kind != "BPE":
        raise Unsupported(f"model {pieces.model.kind:.40}; sotol writes BPE")
    merges = _merges(pieces)
    if read_decoder(pieces.decoder).byte_level:
        split, whole = read_splitter(pieces.splitter), pieces.model.flag("ignore_merges", False)
        name = None if split is None else pretokenizer_name(split, whole_words=whole)
        if name is None:
            raise Unsupported("no name in tokenizer.ggml.pre stands for its pre_tokenizer")
        return [{"model": "gpt2", "pre": name, "merges": merges}]
    scored = {"model": "llama", "pre": "default", "scores": _scores(merges, vocabulary)}
    candidates: list[Mapping[str, object]] = [{**scored, "add_space_prefix": prefix} for prefix in (False, True)]
    if architecture == "gemma4":
        candidates.insert(0, {"model": "gemma4", "pre": "gemma4", "merges": merges, "add_space_prefix": False})
    return candidates


def _merges(pieces: Pieces) -> list[str]:
    """The merges as GGUF has them: two texts and a space."""
    ranks, between = merge_ranks(pieces.model)
    if between == " ":
        return list(ranks)
    if any(" " in merge for merge in ranks):
        raise Unsupported("merges of texts with spaces")
    return [merge.replace(between, " ") for merge in ranks]


def _merges_of_ranks(vocabulary: Vocabulary) -> list[str]:
    """Merges that have the effect of ranks: of all ways to make a token of two, those of the first token come first."""
    first = int(np.argmin(vocabulary.types == TokenType.CONTROL))
    ranks = {text: rank for rank, text in enumerate(vocabulary.tokens[first:])}
    merges = list[str]()
    for text, rank in list(ranks.items())[BYTE_TOKENS:]:
        halves = [(text[:at], text[at:]) for at in range(1, len(text))]
        able = [(ranks[left], ranks[right]) for left, right in halves if left in ranks and right in ranks]
        names = vocabulary.tokens
        merges += [
            f"{names[first + left]} {names[first + right]}" for left, right in sorted(able) if max(left, right) < rank
        ]
    return merges


def _scores(merges: Sequence[str], vocabulary: Vocabulary) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """Scores that have the effect of the merges: the first merge that makes a token decides."""
    count = len(vocabulary.tokens)
    scores = np.full(count, -len(merges) - 1.0, np.float32)
    for rank in range(len(merges) - 1, -1, -1):
        token = vocabulary.ids.get(merges[rank].replace(" ", ""))
        if token is not None:
            scores[token] = -rank
    return scores


# ---- what GGUF says


def _common(folder: Folder, found: _Found, logits: int) -> dict[str, object]:
    """The fields that all kinds have."""
    vocabulary, types = found.vocabulary, found.types.astype(np.int32)
    texts = list(vocabulary.tokens)
    if found.candidates[0]["model"] != "gpt2":
        # They are found in texts before spaces become ▁: so has it llama.cpp's converter.
        for token in np.flatnonzero(types == TokenType.USER_DEFINED).tolist():
            texts[token] = texts[token].replace(SPACES, " ")
        if vocabulary.unknown is not None and types[vocabulary.unknown] == TokenType.CONTROL:
            types[vocabulary.unknown] = TokenType.UNKNOWN
    texts += [f"[PAD{i}]" for i in range(len(texts), logits)]
    types = np.concatenate([types, np.full(logits - len(types), TokenType.UNUSED, np.int32)])
    settings = read_settings(folder)
    named = {"bos": vocabulary.bos, "eos": vocabulary.eos, "unknown": vocabulary.unknown}
    for name, setting in (("padding", "pad_token"), ("unknown", "unk_token")):
        if named.get(name) is None and (text := settings.text_of(setting)) is not None:
            named[name] = vocabulary.ids.get(text)
    return {
        "tokens": texts,
        "token_type": types.tolist(),
        **{f"{name}_token_id": token for name, token in named.items() if token is not None},
        "add_bos_token": found.tokenizer.adds_bos,
        "add_eos_token": found.tokenizer.adds_eos,
    }


def _finished(found: _Found, fields: Mapping[str, object], source: str) -> TokenizerFields:
    """The fields with the ends of answers that only ids can say."""
    remarks = [UNKNOWN_TOKENS] if "scores" in fields and TokenType.BYTE not in found.types else []

    def keyed(more: Mapping[str, object]) -> dict[str, object]:
        return {f"tokenizer.ggml.{key}": value for key, value in {**fields, **more}.items()}

    other = Tokenizer.from_metadata(keyed({}), source)
    lacking = sorted(found.vocabulary.end_of_generation - other.end_of_generation)
    ends = dict(zip(("eot_token_id", "eom_token_id"), lacking, strict=False))
    if len(lacking) > len(ends):
        remarks.append(f"GGUF can name {len(ends)} of the {len(lacking)} tokens that end an answer besides its own")
    metadata = keyed(ends)
    if found.tokenizer.encode("a") != Tokenizer.from_metadata(metadata, source).encode("a"):
        remarks.append("GGUF can't say which tokens come before or behind a text besides bos and eos")
    types = {f"tokenizer.ggml.{key}": kind for key, kind in ARRAY_TYPES.items() if key in fields}
    return TokenizerFields(metadata, types, tuple(remarks))
