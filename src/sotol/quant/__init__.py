"""Encodings of weights: how the numbers of a tensor are stored, and what they mean.

`ENCODINGS` has every tensor type of GGML by name, `BY_TYPE` by number (ggml.h's `ggml_type`; block sizes as in
ggml-common.h), so that any file can be described; those that sotol can also decode and encode live in the files of
this folder, one per family. Other formats' rows become plain blocks (`plain.py`) of any `Layout`.
"""

from functools import partial

from sotol.quant.curves import CURVE_FITS, CURVES
from sotol.quant.encoding import Encoding
from sotol.quant.floats import FLOATS, WHOLES
from sotol.quant.grid_search import FoundRuns, GridFit, encode_runs, find_runs
from sotol.quant.iq1 import IQ1, IQ1_FITS
from sotol.quant.iquants import IQUANT_FITS, IQUANTS
from sotol.quant.kquants import KFITS, KQUANTS
from sotol.quant.layout import (
    FACTORS,
    NUMBERS,
    BlockParts,
    Float16Array,
    Float32Array,
    Int8Array,
    Layout,
    UInt8Array,
    decode_parts,
)
from sotol.quant.legacy import LEGACY, LEGACY_FITS
from sotol.quant.plain import join_plain, plain_encoding, recode
from sotol.quant.search import EncodeWeighted, Fit, Found, encode_fitted, find
from sotol.quant.ternary import TERNARY

__all__ = [
    "BY_TYPE",
    "ENCODINGS",
    "FACTORS",
    "FITS",
    "GRID_FITS",
    "NUMBERS",
    "WEIGHTED",
    "BlockParts",
    "Encoding",
    "Fit",
    "Float16Array",
    "Float32Array",
    "Found",
    "FoundRuns",
    "GridFit",
    "Int8Array",
    "Layout",
    "UInt8Array",
    "decode_parts",
    "encode_fitted",
    "encode_runs",
    "encoding_named",
    "find",
    "find_runs",
    "join_plain",
    "plain_encoding",
    "recode",
]  # fmt: skip

# Known by name, type number, values and bytes of a block. GGML has them for activations; no file has such weights.
DESCRIBED = (
    ("Q8_1", 9, 32, 40),
    ("Q8_K", 15, 256, 292),
)

_OTHERS = (Encoding(name, ggml_type=kind, values=values, size=size) for name, kind, values, size in DESCRIBED)
ENCODINGS: dict[str, Encoding] = {
    e.name: e for e in (*FLOATS, *WHOLES, *LEGACY, *KQUANTS, *CURVES, *TERNARY, *IQUANTS, *IQ1, *_OTHERS)
}
BY_TYPE: dict[int, Encoding] = {e.ggml_type: e for e in ENCODINGS.values() if e.ggml_type is not None}

# The encodings whose blocks are found by a search for scales, and how.
FITS: dict[str, Fit] = {**LEGACY_FITS, **KFITS, **CURVE_FITS}
# Those whose runs are found in a grid.
GRID_FITS: dict[str, GridFit] = {**IQUANT_FITS, **IQ1_FITS}
# Encoders for rows whose columns count differently.
WEIGHTED: dict[str, EncodeWeighted] = {
    **{name: partial(encode_fitted, fit) for name, fit in FITS.items()},
    **{name: partial(encode_runs, fit) for name, fit in GRID_FITS.items()},
}


def encoding_named(name: str) -> Encoding:
    """The encoding of this name: of the table, or the plain blocks of a layout by its key. ValueError for others."""
    return ENCODINGS[name] if name in ENCODINGS else plain_encoding(Layout.parse(name))
