"""Weights as the CPU's matrix kernels read them: panels of 16 rows, so that a vector lane is a row.

Integer encodings, per panel, block by block: the block's factors d (16 f16) and, where there is a minimum, m (16 f16);
then for each group of 32 inputs its integer scales (16 bytes for each part), its integer minimums (16 bytes) and its
packed numbers (`dots.packed_bytes`). Floats: [inputs, 16 rows] as they are stored. Rows beyond the last are zero.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sotol.formats.weights import Weight
from sotol.quant import Encoding, Integer

__all__ = ["ROWS", "Panel", "block_size", "pack", "packed_shape", "panel_of"]

UInt8Array = npt.NDArray[np.uint8]
ROWS = 16


class Panel(NamedTuple):
    """The layout of one block of 16 rows; sizes and offsets in bytes."""

    bits: int
    bias: int
    width: int  # inputs that share a scale
    minimum: bool
    scales: bool
    groups: int  # of 32 inputs, in a block
    parts: int  # scales of a group

    @property
    def header(self) -> int:
        return 64 if self.minimum else 32

    @property
    def packed(self) -> int:
        """Where a group's packed numbers begin."""
        return 16 * (self.parts + self.minimum) if self.scales else 0

    @property
    def group(self) -> int:
        return self.packed + 64 * self.bits

    @property
    def size(self) -> int:
        return self.header + self.groups * self.group


def panel_of(encoding: Encoding) -> Panel:
    """The layout of an integer encoding's panels."""
    layout = _integer(encoding)
    parts = 32 // layout.width
    return Panel(layout.bits, layout.bias, layout.width, layout.minimum, layout.scales, layout.groups // parts, parts)


def _integer(encoding: Encoding) -> Integer:
    if encoding.integer is None:
        raise ValueError(f"{encoding.name} is not an integer encoding")
    return encoding.integer


def packed_shape(weight: Weight) -> tuple[int, int]:
    """Panels of a matrix [N, K], and the bytes of each."""
    rows, width = weight.shape
    return -(-rows // ROWS), width // weight.encoding.values * block_size(weight.encoding)


def block_size(encoding: Encoding) -> int:
    """Bytes of a panel for each block of its rows."""
    return encoding.size * ROWS if encoding.integer is None else panel_of(encoding).size


def pack(weight: Weight, out: UInt8Array) -> None:
    """Write a matrix [N, K] as panels: out is uint8 of `packed_shape`. The definition; `kernels/pack.py` is quicker."""
    rows = weight.rows()
    if weight.shape[0] % ROWS:
        rows = np.concatenate([rows, np.zeros((-weight.shape[0] % ROWS, rows.shape[1]), np.uint8)])
    if weight.encoding.integer is not None:
        _pack_integers(weight.encoding, rows, out)
        return
    kind = f"u{weight.encoding.size}"  # of one number
    panels = rows.view(kind).reshape(len(out), ROWS, -1)
    out.view(kind).reshape(len(out), -1, ROWS)[...] = panels.transpose(0, 2, 1)


def _pack_integers(encoding: Encoding, rows: UInt8Array, packed: UInt8Array) -> None:
    layout, panel = _integer(encoding), panel_of(encoding)
    fields = layout.split(rows)  # q: [N, B, groups, width]
    count, blocks = fields.q.shape[:2]
    out = packed.reshape(count // ROWS, blocks, panel.size)

    def by_panel(x: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """[N, B, …] -> [panels, B, …, 16]."""
        x = x.reshape(count // ROWS, ROWS, *x.shape[1:])
        return np.moveaxis(x, 1, -1)

    def put(at: int, x: npt.NDArray[np.generic]) -> None:
        flat = np.ascontiguousarray(x).view(np.uint8).reshape(*out.shape[:2], -1)
        out[:, :, at : at + flat.shape[-1]] = flat

    put(0, by_panel(fields.d))
    if fields.m is not None:
        put(32, by_panel(fields.m))
    groups = out[:, :, panel.header :].reshape(*out.shape[:2], panel.groups, panel.group)
    if fields.scales is not None:
        scales = by_panel(fields.scales.view(np.uint8))  # [panels, B, groups * parts, 16]
        groups[..., : 16 * panel.parts] = scales.reshape(*groups.shape[:3], 16 * panel.parts)
    if fields.minimums is not None:
        at = 16 * panel.parts
        groups[..., at : at + 16] = by_panel(fields.minimums)
    # [panels, 16, B, groups, vectors, 4] -> a vector's bytes are 4 inputs of each of 16 rows.
    q = fields.q.reshape(count // ROWS, ROWS, blocks, panel.groups, 8, 4).view(np.uint32)[..., 0]
    vectors = np.ascontiguousarray(q.transpose(0, 2, 3, 4, 1)).view(np.uint8)  # [panels, B, groups, 8, 64]
    groups[..., panel.packed :] = _pack_bits(vectors, panel.bits)


def _pack_bits(vectors: UInt8Array, bits: int) -> UInt8Array:
    """[…, 8, 64] numbers -> […, 64 * bits] bytes: what `dots.packed_bytes` reads."""
    lead = vectors.shape[:-2]
    if bits == 8:
        return vectors.reshape(*lead, 512)
    low = vectors & 15 if bits > 4 else vectors
    parts = [(low[..., :4, :] | low[..., 4:, :] << 4).reshape(*lead, 256)]
    wide = bits - 4
    for run in range(wide):
        first = run * 8 // wide
        byte = np.zeros((*lead, 64), np.uint8)
        for j in range(8 // wide):
            byte |= (vectors[..., first + j, :] >> 4) << (j * wide)
        parts.append(byte)
    return np.concatenate(parts, axis=-1)
