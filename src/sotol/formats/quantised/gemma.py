"""Gemma's own form, of its checkpoints for phones (`…-qat-mobile-transformers`): whole numbers of 2, 4 and 8 bits.

Layout: transformers' GemmaQuantizationConfig and gemma_quant.py. Of 8 bits, `weight` is I8. Of 4 and 2 bits it is U8
with several codes in a byte, the first in the lowest bits, half their range added; which of the two, patterns of names
say. `weight_scale` has a factor for each row, in F32. Embeddings are `embedding_quantized` and `embedding_scale`, which
may have several factors for a row. Factors of activations and caches are not used.
"""

import contextlib
import re
from collections.abc import Callable, Sequence

import numpy as np

from sotol.errors import plain
from sotol.formats.quantised.grids import grid_of, width_of
from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import Tensors, numbers, unpacked
from sotol.quant import BlockParts, Layout

__all__ = ["join_gemma"]

ACTIVATIONS = (".input_activation_scale", ".output_activation_scale", ".k_cache_scale", ".v_cache_scale")
PACKED = (2, 4)  # bits of codes that share bytes
# Patterns of names that can't take long: nothing is repeated but digits before a dot, or before the end.
ONE = r"[\w|-]|\\[.d]|\[(?:\w(?:-\w)?)+\]"
PATTERN = re.compile(rf"\^?(?:{ONE}|\\d\+(?=\\\.|\$)|\((?:\?:)?(?:{ONE})*\))*\$?")
MOST_PATTERNS, LONGEST = 100, 200  # far beyond those of released models; the letters of one, and of a module's name
TEXT = ("model.", "model.language_model.")  # a text model's names, here and in a repository of several models


def join_gemma(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "gemma"."""
    usual = settings.integer("num_bits") or 4
    settings.ignore("modules_to_not_convert", "quantize_embeddings")
    patterns, modules = list[tuple[re.Pattern[str], int]](), settings.inner("module_quant_configs")
    texts = modules.in_order() if modules else []
    if len(texts) > MOST_PATTERNS:
        raise settings.fail(f"module_quant_configs has {len(texts)} patterns; sotol reads up to {MOST_PATTERNS}")
    for text in texts:
        own = modules.inner(text) if modules else None
        patterns.append((pattern_of(settings, text), (own.integer("num_bits") if own else None) or usual))
        if own:
            own.finish()
    settings.finish()
    tensors.drop(*ACTIVATIONS)
    bits = bits_by(patterns, usual)
    for ends in ((".weight", ".weight_scale"), (".embedding_quantized", ".embedding_scale")):
        for name in tensors.ending(ends[1]):
            put_whole(tensors, settings, name, ends, bits(name))


def pattern_of(settings: Settings, text: str) -> re.Pattern[str]:
    """A pattern of names; ModelError for one that is none, or could take long."""
    if len(text) <= LONGEST and PATTERN.fullmatch(text):
        with contextlib.suppress(re.error):
            return re.compile(text)
    raise settings.fail(f"module_quant_configs has the pattern {plain(repr(text), 80)}: sotol reads simpler ones")


def bits_by(patterns: Sequence[tuple[re.Pattern[str], int]], usual: int) -> Callable[[str], int]:
    """bits(name): those of the first pattern that a module's name has, in either of its forms."""

    def bits(name: str) -> int:
        names = (name, name.replace(*TEXT, 1)) if len(name) <= LONGEST else ()
        return next((count for pattern, count in patterns if any(map(pattern.search, names))), usual)

    return bits


def put_whole(tensors: Tensors, settings: Settings, name: str, ends: tuple[str, str], bits: int) -> None:
    """A weight: scale * (code less half the range). bits: of codes in bytes."""
    codes, scale = tensors.take(name + ends[0], "U8", "I8"), tensors.take(name + ends[1], "F32")
    signed = codes.encoding.name == "I8"
    if not signed and bits not in PACKED:
        raise settings.fail(f"{name} has {bits} bits, and is packed: sotol has packed codes of 2 and 4 bits")
    bits = 8 if signed else bits
    shape = (*codes.shape[:-1], codes.shape[-1] * 8 // bits)
    grid = grid_of(tensors, scale, shape)
    size = width_of(tensors, codes.name, shape[-1], grid.wide)

    def read(first: int, end: int) -> BlockParts:
        q = numbers(codes, first, end)
        q = q.view(np.uint8) ^ np.uint8(0x80) if signed else unpacked(q, bits)
        q = q.reshape(end - first, -1, 1, size)
        return BlockParts(q, grid.read(first, end, size, q.shape[1]))

    tensors.put(
        f"{name}.weight", shape, Layout(bits, size, numbers=1 << (bits - 1), factor="f32"), (codes, scale), read
    )
