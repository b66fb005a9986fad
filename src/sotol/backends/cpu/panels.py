"""Weights as the CPU's matrix kernels read them: panels of 16 rows, so that a vector lane is a row.

    panel    16 rows of a matrix [N, K], all K inputs: one run of memory. Rows beyond the last are zero
    block    as in the weight's encoding: inputs (32 to 512) of a row that share factors; here of 16 rows
    unit     inputs that share integer scales: one group, or several if a scale is for 64 inputs or more
    group    32 inputs: their codes are packed together, and their activations share a scale
    subgroup half a group, where each 16 inputs have a scale; otherwise the same as a group

(What `quant.Layout` calls a group, the inputs of one scale, is here a subgroup, a group or a unit, by its width.)

A block of an integer encoding, with 16 of everything, one for each row:

    factors d | factors m | unit 0                                                  | unit 1 | ...
                            scales | minimums | zero points | codes of group 0, 1 ... |

Factors are as in the encoding, scales and the like one byte for each subgroup of a group. What an encoding lacks takes
no room. `codes.packed_codes` has the order of a group's bits. Float encodings: [inputs, 16 rows], numbers as in the
file.

Packing moves bits. Encodings whose codes are more than that (`Encoding.recoded`) become plain blocks of bytes before.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sotol.arrays import UInt8Array
from sotol.backends.cpu.layout import GROUP, LANES, PLANES, place_in_plane
from sotol.formats.weights import Weight
from sotol.quant import FACTORS, Encoding, Layout, encoding_named, recode

__all__ = [
    "ROWS",
    "Panel",
    "block_size",
    "moved_encoding",
    "pack",
    "packed_shape",
    "panel_of",
    "panel_problems",
]

ROWS = LANES
LARGEST_BLOCK = 512  # inputs, of which a chunk is unpacked; a wider group is several blocks with the same factor


class Panel(NamedTuple):
    """The layout of one block of 16 rows. Names in _bytes are sizes, in _at offsets, in _stride distances, in bytes."""

    bits: int  # of a code
    table: tuple[int, ...]  # the number that each code stands for; empty: the code minus the bias
    bias: int
    floats: str  # the floats that codes stand for: a key of quant.NUMBERS; empty: whole numbers, by table or bias
    width: int  # inputs of a subgroup
    subgroups: int  # of a group: 1 or 2
    units: int  # of a block
    groups: int  # of a unit
    factor: str  # how a factor is stored: a key of quant.FACTORS
    factor_bytes: int  # of one factor of one row
    factors: int  # of each kind in a block: 1, or one for each scale
    scales: bool
    minimum: bool
    zeros: bool
    floating: bool  # whether scales are E4M3, and not int8

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


def panel_problems(layout: Layout) -> list[str]:
    """Why there are no panels of a layout, by which conditions it fails; empty: there are."""
    conditions = {
        f"codes have {', '.join(map(str, PLANES))} bits": layout.bits in PLANES,
        "codes of a table have up to 4 bits": not isinstance(layout.numbers, tuple) or layout.bits <= 4,
        "groups have 16 numbers or a multiple of 32": layout.width == 16 or layout.width % 32 == 0,
        f"a block has a multiple of 32 numbers, up to {LARGEST_BLOCK}": layout.values % 32 == 0
        and layout.values <= LARGEST_BLOCK,
    }
    return [condition for condition, good in conditions.items() if not good]


def panel_of(layout: Layout) -> Panel:
    """The panels of an integer encoding's layout; ValueError if there are none."""
    if problems := panel_problems(layout):
        raise ValueError(f"the CPU has no kernels for the layout {layout.key()}: {'; '.join(problems)}")
    width = min(layout.width, GROUP)
    groups = layout.width // width
    return Panel(
        bits=layout.bits,
        table=layout.numbers if isinstance(layout.numbers, tuple) else (),
        bias=layout.numbers if isinstance(layout.numbers, int) else 0,
        floats=layout.numbers if isinstance(layout.numbers, str) else "",
        width=width,
        subgroups=GROUP // width,
        units=layout.values // (GROUP * groups),
        groups=groups,
        factor=layout.factor,
        factor_bytes=FACTORS[layout.factor].dtype.itemsize,
        factors=layout.factors,
        scales=layout.scales,
        minimum=layout.minimum,
        zeros=layout.zeros,
        floating=layout.floating,
    )


def packed_shape(weight: Weight) -> tuple[int, int]:
    """Panels of a matrix [N, K], and the bytes of each."""
    rows, width = weight.shape
    return -(-rows // ROWS), width // weight.encoding.values * block_size(weight.encoding)


def block_size(encoding: Encoding) -> int:
    """Bytes of a block of 16 rows."""
    moved = moved_encoding(encoding)
    return moved.size * ROWS if moved.integer is None else panel_of(moved.integer).size


def moved_encoding(encoding: Encoding) -> Encoding:
    """The encoding whose bits are moved to panels: itself, unless it is recoded before."""
    return encoding if encoding.recoded is None else encoding_named(encoding.recoded)


def pack(weight: Weight, out: UInt8Array) -> None:
    """Write a matrix [N, K] as panels: out is uint8 of `packed_shape`. The definition of a panel;
    `kernels/pack.py` makes native code from it, which does the same faster.
    """
    rows, encoding = weight.rows(), moved_encoding(weight.encoding)
    if weight.shape[0] % ROWS:
        rows = np.concatenate([rows, np.zeros((-weight.shape[0] % ROWS, rows.shape[1]), np.uint8)])
    if encoding is not weight.encoding:
        rows = recode(weight.encoding, rows)
    if encoding.integer is not None:
        _pack_integers(encoding, panel_of(encoding.integer), rows, out)
        return
    kind = f"u{encoding.size}"  # of one number
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
    lead, stored, below = vectors.shape[:-2], list[UInt8Array](), 0
    for wide in PLANES[bits]:
        cut = vectors >> below & np.uint8((1 << wide) - 1)
        plane = np.zeros((*lead, wide, 64), np.uint8)  # vectors of 64 bytes
        for j in range(8):
            at, place = place_in_plane(wide, j)
            plane[..., at, :] |= cut[..., j, :] << place
        stored.append(plane.reshape(*lead, 64 * wide))
        below += wide
    return np.concatenate(stored, axis=-1)
