"""A compiled kernel as it is kept and sent: a digest, what it is for, its argument fields, its code.

The digest finds damage and nothing else, since whoever can write a kernel can write its digest. That nobody else can
write one is for `folder.py` to see to.
"""

import hashlib
from typing import NamedTuple

__all__ = ["Compiled", "Key", "file_name", "label", "seal", "unseal"]

Key = tuple[str | int, ...]  # a kernel's name in kernels.KERNELS, then its parameters

_DIGEST_BYTES = 32


class Compiled(NamedTuple):
    """A kernel in the machine's language."""

    fields: str  # its argument block: see layout.parse_fields
    code: bytes  # of a linking.Image whose function is file_name(key)


def file_name(key: Key) -> str:
    """The file of a kernel, and the symbol of its function."""
    return "-".join(map(str, key))


def label(sources: str, level: str, key: Key) -> str:
    """What a compiled kernel is for. sources: `sources.source_digest`, which knows the compilers' versions, too."""
    return f"sotol kernel {file_name(key)} for {level} from {sources}"


def seal(what: str, compiled: Compiled) -> bytes:
    """The bytes to keep: the digest of the rest, then two lines (the label, the fields), then the code."""
    body = b"\n".join((what.encode(), compiled.fields.encode(), compiled.code))
    return hashlib.sha256(body).digest() + body


def unseal(data: bytes, what: str) -> Compiled:
    """What `seal` kept. ValueError, saying what is wrong, for bytes that are damaged or of another label."""
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("it is damaged")
    found, *rest = body.split(b"\n", 2)
    if found != what.encode() or len(rest) != 2:
        raise ValueError("it is not the kernel that its name says")
    return Compiled(rest[0].decode(), rest[1])
