"""SentencePiece's files by hand: messages of protocol buffers, and a small tokenizer.model."""

import struct

__all__ = ["PIECES", "field", "model_file"]

WORDS = ["▁", "t", "h", "e", "▁t", "he", "▁the", "a", "b"]
PIECES = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((f"<0x{i:02X}>", 0.0, 6) for i in range(256)),
          *((text, -float(i), 1) for i, text in enumerate(WORDS)), ("▁▁x", 0.0, 4)]  # fmt: skip


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def field(number: int, value: int | float | bytes | str) -> bytes:
    """A field of a message."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def model_file(*, kind: int = 2, normalizer: bytes = field(3, 1) + field(4, 0), suffix: int = 0) -> bytes:
    """A whole file of `PIECES`."""
    pieces = b"".join(field(1, field(1, text) + field(2, score) + field(3, type_)) for text, score, type_ in PIECES)
    trainer = field(3, kind) + field(24, suffix) + field(35, 1) + field(40, 0) + field(41, 1) + field(42, 2)
    return pieces + field(2, trainer) + field(3, normalizer)
