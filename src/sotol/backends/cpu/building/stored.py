"""A compiled kernel as it is stored and sent: a digest, a label, its argument fields, its code.

The digest detects damage, but no attack: whoever can write a kernel can write its digest. `folder.py` makes sure that
nobody else can write one.
"""

import hashlib
from typing import NamedTuple

__all__ = ["Compiled", "Key", "file_name", "label", "seal", "unseal"]

Key = tuple[str | int, ...]  # a kernel's name in kernels.KERNELS, then its parameters

_DIGEST_BYTES = 32


class Compiled(NamedTuple):
    """A kernel as machine code."""

    fields: str  # its argument block: see layout.parse_fields
    code: bytes  # of a linking.Image whose function is file_name(key)


def file_name(key: Key) -> str:
    """The file of a kernel, and the symbol of its function."""
    return "-".join(map(str, key))


def label(sources: str, level: str, key: Key) -> str:
    """What a compiled kernel is for. sources: `sources.source_digest`, which includes the compilers' versions."""
    return f"sotol kernel {file_name(key)} for {level} from {sources}"


def seal(what: str, compiled: Compiled) -> bytes:
    """The bytes to store: the digest of the rest, then two lines (the label, the fields), then the code."""
    body = b"\n".join((what.encode(), compiled.fields.encode(), compiled.code))
    return hashlib.sha256(body).digest() + body


def unseal(data: bytes, what: str) -> Compiled:
    """The kernel that `seal` stored. ValueError, saying what is wrong, for damaged bytes or another label."""
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("it is damaged")
    found, *rest = body.split(b"\n", 2)
    if found != what.encode() or len(rest) != 2:
        raise ValueError("it is not the kernel that its name says")
    return Compiled(rest[0].decode(), rest[1])
