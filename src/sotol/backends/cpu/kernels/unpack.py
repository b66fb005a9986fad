"""Reading panels: scales, minimums and zero points of 16 rows as vectors, and groups of codes as bytes or as f32.

`panels.py` has the words (block, unit, group, subgroup) and the order of bytes.
"""

import numpy as np
from numba import njit

from sotol.backends.cpu.layout import GROUP, LANES, VECTOR_BYTES
from sotol.backends.cpu.panels import ROWS, Panel
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.codes import Codes
from sotol.backends.cpu.vectors.dots import BEGINNING, byte_storer, load_zeros, value_storer
from sotol.backends.cpu.vectors.factors import factor_loader, multiplier_loader
from sotol.backends.cpu.vectors.simd import f16_loader, load, load_bfloats, splat, store

FLOATS = ("F32", "F16", "BF16")  # kinds of weights that need no unpacking
CODES_BYTES = GROUP * ROWS  # of a group's codes when each has a byte
VALUES_BYTES = GROUP * VECTOR_BYTES  # of a group as f32


def codes_of(panel: Panel) -> Codes:
    """How a panel's codes become numbers."""
    return Codes(panel.bits, panel.table, panel.bias, panel.floats)


def dot_codes(target: Target, panel: Panel, *, unpacked: bool) -> Codes:
    """The same, for dot products of packed or unpacked groups: bytes that exceed numbers by 128, where that is free."""
    middle = target.dot in BEGINNING and (unpacked or bool(panel.table))
    return codes_of(panel)._replace(middle=middle)


def float_loader(target: Target, kind: str):
    """load(address) -> 16 weights of a kind in FLOATS as f32; and the bytes of a stored one."""
    return {"F32": (load, 4), "F16": (f16_loader(target.f16), 2), "BF16": (load_bfloats, 2)}[kind]


def scale_reader(target: Target, panel: Panel):
    """read(factors, unit, subgroup) -> scale, minimum and zero point of 16 rows, for a subgroup of each of its groups.

    factors: where the block has the factors of the unit's first subgroup; unit: where the unit begins. What the
    encoding lacks is 0.
    """
    load_factor, load_multiplier = factor_loader(panel.factor, target.f16), multiplier_loader(floating=panel.floating)
    stride, minimum_at, minimums_at, zeros_at = panel.factor_stride, panel.minimum_at, panel.minimums_at, panel.zeros_at
    has_scales, has_minimum, has_zeros = panel.scales, panel.minimum, panel.zeros

    @njit(error_model="numpy")
    def read(factors, unit, subgroup):
        at = factors + subgroup * stride
        scale, minimum, zero = load_factor(at), splat(np.float32(0)), splat(np.float32(0))
        if has_minimum:
            minimum = load_factor(at + minimum_at)
        if has_scales:
            scale = scale * load_multiplier(unit + LANES * subgroup)
            if has_minimum:
                minimum = minimum * load_multiplier(unit + minimums_at + LANES * subgroup)
        if has_zeros:
            zero = load_zeros(unit + zeros_at + LANES * subgroup)
        return scale, minimum, zero

    return read


def scales_bytes(panel: Panel) -> int:
    """Bytes of a subgroup's scale, minimum and zero points as vectors of f32."""
    return VECTOR_BYTES * (1 + panel.minimum + panel.zeros)


def unpacked_bytes(panel: Panel) -> int:
    """Bytes of a group that `bytes_unpacker` has unpacked: its codes, then each subgroup's scales."""
    return CODES_BYTES + panel.subgroups * scales_bytes(panel)


def bytes_unpacker(target: Target, panel: Panel):
    """unpack(w, inputs, space) -> space: groups for int8 products, one after the other, each of `unpacked_bytes`.

    w: the first of the blocks that have these inputs.
    """
    units, groups, header, unit_bytes = panel.units, panel.groups, panel.header_bytes, panel.unit_bytes
    codes_at, group_bytes, values = panel.codes_at, panel.group_bytes, panel.values
    subgroups, factor_stride = panel.subgroups, panel.subgroups * panel.factor_stride
    has_minimum, has_zeros, subgroup_bytes = panel.minimum, panel.zeros, scales_bytes(panel)
    read, put = scale_reader(target, panel), byte_storer(target.dot, dot_codes(target, panel, unpacked=True))
    zero_at, size = VECTOR_BYTES * (1 + has_minimum), unpacked_bytes(panel)

    @njit(error_model="numpy")
    def store_scales(factors, unit, subgroup, to):
        scale, minimum, zero = read(factors, unit, subgroup)
        store(to, scale)
        if has_minimum:
            store(to + VECTOR_BYTES, minimum)
        if has_zeros:
            store(to + zero_at, zero)

    @njit(error_model="numpy")
    def unpack(w, inputs, space):
        to = space
        for _block in range(0, inputs, values):
            for u in range(units):
                factors, unit = w + u * factor_stride, w + header + u * unit_bytes
                for g in range(groups):
                    put(unit + codes_at + g * group_bytes, to)
                    store_scales(factors, unit, 0, to + CODES_BYTES)
                    if subgroups == 2:
                        store_scales(factors, unit, 1, to + CODES_BYTES + subgroup_bytes)
                    to += size
            w += header + units * unit_bytes
        return space

    return unpack


def values_unpacker(target: Target, panel: Panel):
    """unpack(w, inputs, space) -> space: decoded weights, f32 [inputs, 16 rows]; w as of `bytes_unpacker`."""
    units, groups, header, unit_bytes = panel.units, panel.groups, panel.header_bytes, panel.unit_bytes
    codes_at, group_bytes, values = panel.codes_at, panel.group_bytes, panel.values
    subgroups, factor_stride = panel.subgroups, panel.subgroups * panel.factor_stride
    read = scale_reader(target, panel)
    put = value_storer(target.dot, codes_of(panel), panel.width, minimum=panel.minimum, zeros=panel.zeros)

    @njit(error_model="numpy")
    def unpack(w, inputs, space):
        to = space
        for _block in range(0, inputs, values):
            for u in range(units):
                factors, unit = w + u * factor_stride, w + header + u * unit_bytes
                for g in range(groups):
                    scale, minimum, zero = read(factors, unit, 0)
                    put(unit + codes_at + g * group_bytes, 0, scale, minimum, zero, to)
                    if subgroups == 2:
                        scale, minimum, zero = read(factors, unit, 1)
                        put(unit + codes_at + g * group_bytes, 1, scale, minimum, zero, to)
                    to += VALUES_BYTES
            w += header + units * unit_bytes
        return space

    return unpack
