"""Reads tokenizer.model, SentencePiece's own file, for folders without a tokenizer.json.

It is a protocol buffer (https://protobuf.dev/programming-guides/encoding) of the message ModelProto, whose fields are
in sentencepiece's src/sentencepiece_model.proto. What sotol needs of it becomes the fields that GGUF has for the same
vocabulary, whose types of tokens are SentencePiece's; so the reader and the encoder are GGUF's. Files are not trusted.
"""

import struct
from collections.abc import Iterator

from sotol.errors import FormatError, ModelError

__all__ = ["read_sentencepiece"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # kinds of fields
MAX_FIELDS = 1 << 20  # of one message: pieces above all
PIECES, TRAINER, NORMALIZER = 1, 2, 3  # fields of ModelProto
MODEL_TYPE, BYTE_FALLBACK, SUFFIX, IDS = 3, 35, 24, {40: "unknown", 41: "bos", 42: "eos"}  # of TrainerSpec
CHARSMAP, DUMMY_PREFIX, EXTRA_SPACES = 2, 3, 4  # of NormalizerSpec
KINDS = {1: "Unigram", 2: "BPE", 3: "Word", 4: "Char"}
USER_DEFINED = 4

Value = int | bytes


def read_sentencepiece(data: bytes, file: str) -> dict[str, object]:
    """GGUF's metadata of the vocabulary. FormatError for what is no such file, ModelError for another kind than BPE."""
    tokens, scores, types = list[str](), list[float](), list[int]()
    trainer, normalizer = dict[int, Value](), dict[int, Value]()
    for number, value in _fields(data, file, "the file"):
        if not isinstance(value, bytes):
            continue
        if number == PIECES:
            where = f"piece {len(tokens)}"
            piece = dict(_fields(value, file, where))
            text, kind = piece.get(1, b""), piece.get(3, 1)
            if not isinstance(text, bytes) or not isinstance(kind, int):
                raise FormatError(f"{file}: {where} is no piece with a text and a type")
            found = text.decode(errors="surrogateescape")
            tokens.append(found.replace("▁", " ") if kind == USER_DEFINED else found)
            scores.append(_number(piece.get(2, b"\0\0\0\0")))
            types.append(kind)
        elif number in (TRAINER, NORMALIZER):
            (trainer if number == TRAINER else normalizer).update(_fields(value, file, f"field {number}"))
    kind = trainer.get(MODEL_TYPE, 1)
    lacking = [] if kind == 2 else [f"its kind {KINDS.get(kind, str(kind)) if isinstance(kind, int) else 'in bytes'}"]
    lacking += ["its normalizer"] if normalizer.get(CHARSMAP) else []
    lacking += ["that it removes spaces"] if normalizer.get(EXTRA_SPACES, 1) else []
    lacking += ["that a space follows a word"] if trainer.get(SUFFIX) else []
    if lacking:
        raise ModelError(f"{file}: sotol does not support {', '.join(lacking)}: save the tokenizer as tokenizer.json")
    given = {name: trainer.get(number, default) for default, (number, name) in enumerate(IDS.items())}
    ids = {f"{name}_token_id": value for name, value in given.items() if isinstance(value, int) and value < len(tokens)}
    fields = {"model": "llama", "tokens": tokens, "scores": scores, "token_type": types, **ids,
              "add_space_prefix": bool(normalizer.get(DUMMY_PREFIX, 1))}  # fmt: skip
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items()}


def _number(value: Value) -> float:
    """A float, which is four bytes here."""
    return float(struct.unpack("<f", value)[0]) if isinstance(value, bytes) and len(value) == 4 else 0.0


def _fields(data: bytes, file: str, where: str) -> Iterator[tuple[int, Value]]:
    """The fields of a message: number, and a whole number or bytes. FormatError where the data are none."""
    at = count = 0
    while at < len(data):
        count += 1
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            size = 0
        elif kind == BYTES:
            size, at = _varint(data, at)
        else:
            size = {FIXED64: 8, FIXED32: 4}.get(kind, -1)
        if at < 0 or number < 1 or not 0 <= size <= len(data) - at or count > MAX_FIELDS:
            raise FormatError(f"{file}: {where} is no message of SentencePiece's: it is cut short or damaged")
        yield number, value if kind == VARINT else data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number of up to ten bytes, and the place behind it; -1 for the place if there is none."""
    value = 0
    for i in range(10):
        if not 0 <= at + i < len(data) or at < 0:
            break
        value |= (data[at + i] & 0x7F) << 7 * i
        if data[at + i] < 0x80:
            return value, at + i + 1
    return 0, -1
