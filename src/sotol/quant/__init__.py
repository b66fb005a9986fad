"""Encodings of weights: how the numbers of a tensor are stored, and what they mean.

`ENCODINGS` has every tensor type of GGML by name, `BY_TYPE` by number (ggml.h's `ggml_type`; block sizes as in
ggml-common.h), so that any file can be described; those that sotol can also decode and encode live in the files of
this folder, one per family. Other formats' rows become plain blocks (`plain.py`) of any `Layout`.
"""

from sotol.quant.encoding import Encoding
from sotol.quant.floats import FLOATS
from sotol.quant.kquants import KQUANTS
from sotol.quant.layout import (
    BlockParts,
    Float16Array,
    Float32Array,
    Int8Array,
    Layout,
    UInt8Array,
    decode_parts,
)
from sotol.quant.legacy import LEGACY
from sotol.quant.plain import join_plain, plain_encoding

__all__ = [
    "BY_TYPE",
    "ENCODINGS",
    "BlockParts",
    "Encoding",
    "Float16Array",
    "Float32Array",
    "Int8Array",
    "Layout",
    "UInt8Array",
    "decode_parts",
    "encoding_named",
    "join_plain",
    "plain_encoding",
]  # fmt: skip

# Known by name, type number, values and bytes of a block; not decoded yet.
DESCRIBED = (
    ("Q8_1", 9, 32, 40),
    ("Q2_K", 10, 256, 84),
    ("Q3_K", 11, 256, 110),
    ("Q8_K", 15, 256, 292),
    ("IQ2_XXS", 16, 256, 66),
    ("IQ2_XS", 17, 256, 74),
    ("IQ3_XXS", 18, 256, 98),
    ("IQ1_S", 19, 256, 50),
    ("IQ4_NL", 20, 32, 18),
    ("IQ3_S", 21, 256, 110),
    ("IQ2_S", 22, 256, 82),
    ("IQ4_XS", 23, 256, 136),
    ("I8", 24, 1, 1),
    ("I16", 25, 1, 2),
    ("I32", 26, 1, 4),
    ("I64", 27, 1, 8),
    ("F64", 28, 1, 8),
    ("IQ1_M", 29, 256, 56),
    ("TQ1_0", 34, 256, 54),
    ("TQ2_0", 35, 256, 66),
    ("MXFP4", 39, 32, 17),
    ("NVFP4", 40, 64, 36),
    ("Q1_0", 41, 128, 18),
)

_OTHERS = (Encoding(name, ggml_type=kind, values=values, size=size) for name, kind, values, size in DESCRIBED)
ENCODINGS: dict[str, Encoding] = {e.name: e for e in (*FLOATS, *LEGACY, *KQUANTS, *_OTHERS)}
BY_TYPE: dict[int, Encoding] = {e.ggml_type: e for e in ENCODINGS.values() if e.ggml_type is not None}


def encoding_named(name: str) -> Encoding:
    """The encoding of this name: of the table, or the plain blocks of a layout by its key. ValueError for others."""
    return ENCODINGS[name] if name in ENCODINGS else plain_encoding(Layout.parse(name))
