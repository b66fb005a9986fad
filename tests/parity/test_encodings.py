"""Every encoding against llama.cpp's own conversions: the same numbers from any bytes, and errors that are no larger.

The `gguf` package, which judges most of them in tests/quant, lacks the newest ones.
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sotol.quant import ENCODINGS

pytestmark = pytest.mark.skipif(
    not os.environ.get("SOTOL_PARITY"), reason="SOTOL_PARITY names no folder: `make parity` makes and names it"
)
llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make parity` builds it")

INTEGER = [name for name, encoding in ENCODINGS.items() if encoding.integer]
ONLY_WITH_IMPORTANCE = {"IQ2_XXS", "IQ2_XS", "IQ1_S"}  # llama.cpp's encoders want a matrix of it; ours is all ones
WIDTH = 2048


def function(name: str) -> Callable[..., int]:
    """A function of libggml-base by its name, with Q4_K's capital K."""
    (path,) = Path(llama_cpp.__file__).parent.glob("lib/libggml-base.so")
    found: Callable[..., int] = getattr(ctypes.CDLL(str(path)), name)
    found.restype = ctypes.c_size_t  # type: ignore[attr-defined]
    return found


def named(verb: str, encoding: str) -> str:
    return f"{verb}_{encoding.lower().replace('_k', '_K')}"


def address(x: np.ndarray | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.ctypes.data)


@pytest.mark.parametrize("name", INTEGER)
def test_the_same_numbers(name: str) -> None:
    encoding = ENCODINGS[name]
    assert encoding.decode is not None
    data = np.random.default_rng(0).integers(0, 256, (40, WIDTH // encoding.values * encoding.size), np.uint8)
    theirs = np.zeros((40, WIDTH), np.float32)
    function(named("dequantize_row", name))(address(data), address(theirs), ctypes.c_int64(theirs.size))
    ours = encoding.decode(data)
    same = (ours.view(np.int32) == theirs.view(np.int32)) | (np.isnan(ours) & np.isnan(theirs))
    assert same.all()
    assert np.isfinite(ours).mean() > 0.9


@pytest.mark.parametrize("name", INTEGER)
def test_errors_are_no_larger(name: str) -> None:
    """On normal numbers, each counting alike, as llama.cpp's encoders have it without an importance matrix, or not."""
    encoding = ENCODINGS[name]
    assert encoding.encode is not None
    assert encoding.decode is not None
    x = (np.random.default_rng(1).standard_normal((16, WIDTH)) / 20).astype(np.float32)
    stored = encoding.encode(x)
    function("ggml_quantize_init")(encoding.ggml_type)
    theirs = np.zeros_like(stored)
    importance = np.ones(WIDTH, np.float32) if name in ONLY_WITH_IMPORTANCE else None
    quantize = function(named("quantize", name))
    quantize(address(x), address(theirs), ctypes.c_int64(16), ctypes.c_int64(WIDTH), address(importance))
    errors = [float(np.mean((encoding.decode(data).astype(np.float64) - x) ** 2)) for data in (stored, theirs)]
    assert errors[0] <= 1.05 * errors[1]
