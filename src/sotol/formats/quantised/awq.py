"""AWQ (Lin et al. 2023, arXiv 2306.00978): whole numbers of 4 bits, with zero points, stored transposed.

Layout: AutoAWQ's WQLinear_GEMM. `qweight` [K, N / 8] has eight neighbouring outputs in a word, and `qzeros`
[groups, N / 8] the same, in the order of `OUTPUTS`; `scales` [groups, N]. A number is scale * (code - zero).
"""

import numpy as np

from sotol.formats.quantised.settings import Settings
from sotol.formats.quantised.tensors import FACTOR_KINDS, Numbers, Tensors, block_width, columns
from sotol.quant import BlockParts, Layout, UInt8Array

__all__ = ["join_awq", "put_awq"]

OUTPUTS = (0, 2, 4, 6, 1, 3, 5, 7)  # of eight, in the order of a word's bits, the lowest first


def join_awq(settings: Settings, tensors: Tensors) -> None:
    """The weights of a checkpoint whose quant_method is "awq"."""
    settings.expect("version", "gemm", "GEMM")
    for key in ("bits", "w_bit"):
        settings.expect(key, 4)
    settings.ignore(
        "group_size", "q_group_size", "zero_point", "modules_to_not_convert", "backend", "do_fuse", "fuse_max_seq_len",
        "modules_to_fuse", "exllama_config", "desc_act", "sym", "true_sequential", "lm_head", "dynamic", "meta",
    )  # fmt: skip
    for key in ("format", "checkpoint_format"):
        settings.expect(key, "gemm")
    settings.expect("pack_dtype", "int32")
    settings.finish()
    for name in tensors.ending(".qweight"):
        put_awq(tensors, name)


def put_awq(tensors: Tensors, name: str) -> None:
    """One weight."""
    packed = tensors.take(f"{name}.qweight", "I32", "U32")
    scale = tensors.take(f"{name}.scales", *FACTOR_KINDS)
    if len(packed.shape) != 2 or len(scale.shape) != 2 or packed.shape[1] * 8 != scale.shape[1]:
        raise tensors.fail(packed.name, f"has shape {list(packed.shape)}, and scales {list(scale.shape)}")
    (width, words), (groups, outputs) = packed.shape, scale.shape
    zeros = tensors.take(f"{name}.qzeros", "I32", "U32", shape=(groups, words))
    size = 0 if width % groups else block_width(width, width // groups)
    if size == 0:
        raise tensors.fail(packed.name, f"has {width} inputs in {groups} groups: sotol runs multiples of 32")
    layout = Layout(4, size, factor=FACTOR_KINDS[scale.encoding.name], zeros=True)
    which = np.arange(width // size) * size // (width // groups)

    def read(first: int, end: int) -> BlockParts:
        begin, stop = first // 8, -(-end // 8)
        own = slice(first - 8 * begin, end - 8 * begin)
        codes, points = (outputs_of(columns(x, begin, stop))[own] for x in (packed, zeros))
        q = codes.reshape(end - first, -1, 1, size)
        return BlockParts(q, columns(scale, first, end).T[:, which], zeros=points[:, which, None])

    tensors.put(f"{name}.weight", (outputs, width), layout, (packed, scale, zeros), read)


def outputs_of(words: Numbers) -> UInt8Array:
    """The codes of words, a row for each output: [rows, words] -> [8 * words, rows]."""
    data = np.ascontiguousarray(words.T).view(np.uint8).reshape(words.shape[1], len(words), 4)
    codes = np.empty((words.shape[1], 8, len(words)), np.uint8)
    for i in range(4):
        low, high = OUTPUTS[2 * i : 2 * i + 2]
        codes[:, low], codes[:, high] = data[..., i] & np.uint8(15), data[..., i] >> np.uint8(4)
    return codes.reshape(-1, len(words))
