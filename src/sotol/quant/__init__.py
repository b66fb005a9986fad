"""Encodings of weights: how the numbers of a tensor are stored, and what they mean.

`ENCODINGS` has every tensor type of GGML by name, `BY_TYPE` by number (ggml.h's `ggml_type`; block sizes as in
ggml-common.h), so that any file can be described; those that sotol can also decode and encode live in the files of
this folder, one per family.
"""

from sotol.quant.encoding import (
    Encoding,
    Fields,
    Float16Array,
    Float32Array,
    Int8Array,
    Integer,
    UInt8Array,
    decode_fields,
)
from sotol.quant.floats import FLOATS
from sotol.quant.kquants import KQUANTS
from sotol.quant.legacy import LEGACY

__all__ = [
    "BY_TYPE",
    "ENCODINGS",
    "Encoding",
    "Fields",
    "Float16Array",
    "Float32Array",
    "Int8Array",
    "Integer",
    "UInt8Array",
    "decode_fields",
]

# Known by name, type number, values and bytes of a block; not decoded yet.
DESCRIBED = (
    Encoding("Q8_1", 9, 32, 40),
    Encoding("Q2_K", 10, 256, 84),
    Encoding("Q3_K", 11, 256, 110),
    Encoding("Q8_K", 15, 256, 292),
    Encoding("IQ2_XXS", 16, 256, 66),
    Encoding("IQ2_XS", 17, 256, 74),
    Encoding("IQ3_XXS", 18, 256, 98),
    Encoding("IQ1_S", 19, 256, 50),
    Encoding("IQ4_NL", 20, 32, 18),
    Encoding("IQ3_S", 21, 256, 110),
    Encoding("IQ2_S", 22, 256, 82),
    Encoding("IQ4_XS", 23, 256, 136),
    Encoding("I8", 24, 1, 1),
    Encoding("I16", 25, 1, 2),
    Encoding("I32", 26, 1, 4),
    Encoding("I64", 27, 1, 8),
    Encoding("F64", 28, 1, 8),
    Encoding("IQ1_M", 29, 256, 56),
    Encoding("TQ1_0", 34, 256, 54),
    Encoding("TQ2_0", 35, 256, 66),
    Encoding("MXFP4", 39, 32, 17),
    Encoding("NVFP4", 40, 64, 36),
    Encoding("Q1_0", 41, 128, 18),
)

ENCODINGS: dict[str, Encoding] = {e.name: e for e in (*FLOATS, *LEGACY, *KQUANTS, *DESCRIBED)}
BY_TYPE: dict[int, Encoding] = {e.ggml_type: e for e in ENCODINGS.values()}
