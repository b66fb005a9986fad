"""Weights as the CPU's matrix kernels read them: panels of 16 rows, so that a vector lane is a row.

    panel    16 rows of a matrix [N, K], all K inputs: one run of memory. Rows beyond the last are zero
    block    as in the weight's encoding: inputs (32 or 256) of a row that share factors; here of 16 rows
    unit     inputs that share integer scales: one group, or several if a scale is for 64 inputs or more
    group    32 inputs: their codes are packed together, and their activations share a scale
    subgroup half a group, where each 16 inputs have a scale; otherwise the same as a group

(What `quant.Layout` calls a group, the inputs of one scale, is here a subgroup, a group or a unit, by its width.)

A block of an integer encoding, with 16 of everything, one for each row:

    factors d | factors m | unit 0                                                  | unit 1 | ...
                            scales | minimums | zero points | codes of group 0, 1 ... |

Factors are f16 or f32, scales and the like one byte for each subgroup of a group. What an encoding lacks takes no room.
`codes.packed_codes` has the order of a group's bits. Float encodings: [inputs, 16 rows], numbers as in the file.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sotol.arrays import UInt8Array
from sotol.backends.cpu.layout import GROUP, LANES
from sotol.formats.weights import Weight
from sotol.quant import Encoding, Layout

__all__ = ["ROWS", "Panel", "block_size", "pack", "packed_shape", "panel_of"]

ROWS = LANES


class Panel(NamedTuple):
    """The layout of one block of 16 rows. Names in _bytes are sizes, in _at offsets, in _stride distances, in bytes."""

    bits: int  # of a code
    table: tuple[int, ...]  # the number that each code stands for; empty: the code minus the bias
    bias: int
    width: int  # inputs of a subgroup
    subgroups: int  # of a group: 1 or 2
    units: int  # of a block
    groups: int  # of a unit
    factor_bytes: int  # of one factor of one row
    factors: int  # of each kind in a block: 1, or one for each scale
    scales: bool
    minimum: bool
    zeros: bool

    @property
    def values(self) -> int:
        """Inputs of a block."""
        return self.units * self.groups * GROUP

    @property
    def minimum_at(self) -> int:
        """Where the factors m begin."""
        return ROWS * self.factor_bytes * self.factors

    @property
    def header_bytes(self) -> int:
        return self.minimum_at * (1 + self.minimum)

    @property
    def factor_stride(self) -> int:
        """From the factor of a scale to the next one's; 0 where a block has only one."""
        return ROWS * self.factor_bytes if self.factors > 1 else 0

    @property
    def minimums_at(self) -> int:
        """Where a unit's integer minimums begin."""
        return ROWS * self.subgroups * self.scales

    @property
    def zeros_at(self) -> int:
        """Where a unit's zero points begin."""
        return self.minimums_at * (1 + self.minimum)

    @property
    def codes_at(self) -> int:
        """Where a unit's packed codes begin."""
        return self.zeros_at + ROWS * self.subgroups * self.zeros

    @property
    def group_bytes(self) -> int:
        """The packed codes of a group."""
        return GROUP * ROWS * self.bits // 8

    @property
    def unit_bytes(self) -> int:
        return self.codes_at + self.groups * self.group_bytes

    @property
    def size(self) -> int:
        return self.header_bytes + self.units * self.unit_bytes


def panel_of(layout: Layout) -> Panel:
    """The panels of an integer encoding's layout."""
    width = min(layout.width, GROUP)
    groups = layout.width // width
    table, bias = ((), layout.numbers) if isinstance(layout.numbers, int) else (layout.numbers, 0)
    return Panel(
        bits=layout.bits,
        table=table,
        bias=bias,
        width=width,
        subgroups=GROUP // width,
        units=layout.values // (GROUP * groups),
        groups=groups,
        factor_bytes={"f16": 2, "f32": 4}[layout.factor],
        factors=layout.factors,
        scales=layout.scales,
        minimum=layout.minimum,
        zeros=layout.zeros,
    )


def packed_shape(weight: Weight) -> tuple[int, int]:
    """Panels of a matrix [N, K], and the bytes of each."""
    rows, width = weight.shape
    return -(-rows // ROWS), width // weight.encoding.values * block_size(weight.encoding)


def block_size(encoding: Encoding) -> int:
    """Bytes of a block of 16 rows."""
    return encoding.size * ROWS if encoding.integer is None else panel_of(encoding.integer).size


def pack(weight: Weight, out: UInt8Array) -> None:
    """Write a matrix [N, K] as panels: out is uint8 of `packed_shape`. The definition of a panel;
    `kernels/pack.py` makes native code from it, which does the same faster.
    """
    rows = weight.rows()
    if weight.shape[0] % ROWS:
        rows = np.concatenate([rows, np.zeros((-weight.shape[0] % ROWS, rows.shape[1]), np.uint8)])
    if weight.encoding.integer is not None:
        _pack_integers(weight.encoding, panel_of(weight.encoding.integer), rows, out)
        return
    kind = f"u{weight.encoding.size}"  # of one number
    panels = rows.view(kind).reshape(len(out), ROWS, -1)
    out.view(kind).reshape(len(out), -1, ROWS)[...] = panels.transpose(0, 2, 1)


def _pack_integers(encoding: Encoding, panel: Panel, rows: UInt8Array, packed: UInt8Array) -> None:
    assert encoding.split is not None
    fields = encoding.split(rows)  # q: [N, B, groups, width]
    count, blocks = fields.q.shape[:2]
    out = packed.reshape(count // ROWS, blocks, panel.size)
    units = out[:, :, panel.header_bytes :].reshape(*out.shape[:2], panel.units, panel.unit_bytes)

    def by_panel(x: npt.NDArray[np.generic]) -> UInt8Array:
        """[N, B, …] -> [panels, B, bytes of … and 16 rows]."""
        lanes = np.moveaxis(x.reshape(count // ROWS, ROWS, *x.shape[1:]), 1, -1)
        return np.ascontiguousarray(lanes).view(np.uint8).reshape(*out.shape[:2], -1)

    for at, factors in ((0, fields.d), (panel.minimum_at, fields.m)):
        if factors is not None:
            flat = by_panel(factors)
            out[:, :, at : at + flat.shape[-1]] = flat
    for at, small in ((0, fields.scales), (panel.minimums_at, fields.minimums), (panel.zeros_at, fields.zeros)):
        if small is not None:
            units[..., at : at + ROWS * panel.subgroups] = by_panel(small.view(np.uint8)).reshape(*units.shape[:3], -1)
    # [panels, 16, B, units, groups, vectors, 4] -> a vector's bytes are 4 inputs of each of 16 rows.
    q = fields.q.reshape(count // ROWS, ROWS, blocks, panel.units, panel.groups, 8, 4).view(np.uint32)[..., 0]
    vectors = np.ascontiguousarray(np.moveaxis(q, 1, -1)).view(np.uint8)  # [panels, B, units, groups, 8, 64]
    units[..., panel.codes_at :] = _pack_bits(vectors, panel.bits).reshape(*units.shape[:3], -1)


def _pack_bits(vectors: UInt8Array, bits: int) -> UInt8Array:
    """A group's codes […, 8, 64], a byte each -> […, 64 * bits] bytes: the order that `codes.packed_codes` reads."""
    lead = vectors.shape[:-2]
    if bits == 8:
        return vectors.reshape(*lead, 512)
    low = vectors & 15 if bits > 4 else vectors
    stored = [(low[..., :4, :] | low[..., 4:, :] << 4).reshape(*lead, 256)]
    wide = bits - 4
    for vector in range(wide):
        first = vector * 8 // wide
        byte = np.zeros((*lead, 64), np.uint8)
        for j in range(8 // wide):
            byte |= (vectors[..., first + j, :] >> 4) << (j * wide)
        stored.append(byte)
    return np.concatenate(stored, axis=-1)
