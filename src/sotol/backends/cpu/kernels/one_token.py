"""Products of a single token: each weight is used once, so there is nothing to share, and what it waits for is memory.

So it reads panels as they lie, and prefetches far ahead, past the end of a panel, where the next one begins. Codes are
unpacked in registers. With int8 activations a panel's sums wait for one addition a group; with f32 ones they would wait
for one an input, so those of four panels take turns. Sums are those of `linear.py`'s loops for several tokens, to the
bit.
"""

from numba import njit

from sotol.backends.cpu.kernels.unpack import codes_of, scale_reader
from sotol.backends.cpu.layout import GROUP, QUANT_RECORD, VECTOR_BYTES
from sotol.backends.cpu.panels import Panel
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.dots import dots_adder, group_dots, value_adder
from sotol.backends.cpu.vectors.simd import prefetch
from sotol.backends.cpu.vectors.tiles import outer, store_rows, vector_row, zeros

AHEAD = 8192  # bytes between what one token reads and what it prefetches: a quarter of a small first-level cache


def int8_of_one(target: Target, panel: Panel):
    """product(…), as of `linear.int8_product`, of one token."""
    return _product(lambda count: _packed_tile(panel, _group_adder(target, panel), GROUP, count), 1)


def values_of_one(target: Target, panel: Panel):
    """The same, for f32 activations."""
    return _product(lambda count: _packed_tile(panel, _values_adder(target, panel, count), 4 * GROUP, count), 4)


def floats_of_one(load_values, each: int):
    """The same, for weights that are floats. each: bytes of an input of 16 rows."""
    return _product(lambda count: _float_tile(load_values, each, count), 4)


def _product(make_tile, together: int):
    """product(…): `together` panels at a time, and those that are left one by one.

    make_tile(n) -> tile(w, apart, width, x, quant, out): n neighbouring panels, `apart` bytes from one to the next.
    """
    several = make_tile(together)
    one = several if together == 1 else make_tile(1)

    @njit(error_model="numpy")
    def product(w, panels, apart, width, tokens):
        whole = panels // together * together
        for n in range(0, whole, together):
            several(w + n * apart, apart, width, tokens.x, tokens.quant, tokens.out + VECTOR_BYTES * n)
        for n in range(whole, panels):
            one(w + n * apart, apart, width, tokens.x, tokens.quant, tokens.out + VECTOR_BYTES * n)

    return product


def _packed_tile(panel: Panel, add_group, x_bytes: int, panels: int):
    """tile(w, apart, width, x, quant, out), as of `_product`, from packed codes.

    add_group: of `_group_adder` or `_values_adder`, for so many panels. x_bytes: of a group's activations.
    """
    units, groups, header, unit_bytes = panel.units, panel.groups, panel.header_bytes, panel.unit_bytes
    values, factor_stride = panel.values, panel.subgroups * panel.factor_stride
    each = panel.size // (units * groups)  # bytes to prefetch for a group: with its share of scales and factors

    @njit(error_model="numpy")
    def tile(w, apart, width, x, quant, out):
        sums, ahead = zeros(1, panels), w + AHEAD // panels
        for _block in range(0, width, values):
            for u in range(units):
                for g in range(groups):
                    for n in range(panels):
                        prefetch(ahead + n * apart, each)
                    ahead += each
                    sums = add_group(sums, w + u * factor_stride, w + header + u * unit_bytes, apart, g, x, quant)
                    x += x_bytes
                    quant += QUANT_RECORD
            w += header + units * unit_bytes
        store_rows(sums, out, 0)

    return tile


def _group_adder(target: Target, panel: Panel):
    """add(sums, factors, unit, apart, g, x, quant): one token's sums of a panel, with group g of a unit."""
    codes_at, group_bytes, subgroups = panel.codes_at, panel.group_bytes, panel.subgroups
    read, dots = scale_reader(target, panel), group_dots(target.dot, 1, codes_of(panel), panel.width, packed=True)
    add_first, add_last = adders(panel, dots_adder)

    @njit(error_model="numpy")
    def add_group(sums, factors, unit, _apart, g, x, quant):
        at = unit + codes_at + g * group_bytes
        found = dots(at, 0, x, 0, quant, 0)
        scale, minimum, zero = read(factors, unit, 0)
        sums = add_first(sums, found, scale, minimum, zero, quant, 0)
        if subgroups == 2:
            found = dots(at, 1, x, 0, quant, 0)
            scale, minimum, zero = read(factors, unit, 1)
            sums = add_last(sums, found, scale, minimum, zero, quant, 0)
        return sums

    return add_group


def adders(panel: Panel, adder):
    """For the first and the last subgroup of a group: what `adder` makes, to add its scaled dots to the sums."""
    return [adder(panel.width, n, minimum=panel.minimum, zeros=panel.zeros) for n in (0, panel.subgroups - 1)]


def _values_adder(target: Target, panel: Panel, panels: int):
    """add(sums, factors, unit, apart, g, x, quant): as of `_group_adder`, for f32 activations and so many panels."""
    codes_at, group_bytes, subgroups = panel.codes_at, panel.group_bytes, panel.subgroups
    add = value_adder(target.dot, codes_of(panel), panel.width, minimum=panel.minimum, zeros=panel.zeros)
    terms = _terms_of(scale_reader(target, panel), panels)

    @njit(error_model="numpy")
    def add_group(sums, factors, unit, apart, g, x, _quant):
        at = unit + codes_at + g * group_bytes
        scales, minimums, zero_points = terms(factors, unit, 0, apart)
        sums = add(sums, at, apart, 0, scales, minimums, zero_points, x)
        if subgroups == 2:
            scales, minimums, zero_points = terms(factors, unit, 1, apart)
            sums = add(sums, at, apart, 1, scales, minimums, zero_points, x)
        return sums

    return add_group


def _terms_of(read, panels: int):
    """terms(factors, unit, subgroup, apart): what `read` (`unpack.scale_reader`) gives, a column for each panel."""
    row = vector_row(panels)

    @njit(error_model="numpy")
    def one(factors, unit, subgroup, _apart):
        scale, minimum, zero = read(factors, unit, subgroup)
        return row(scale), row(minimum), row(zero)

    @njit(error_model="numpy")
    def four(factors, unit, subgroup, apart):
        a, b = read(factors, unit, subgroup), read(factors + apart, unit + apart, subgroup)
        c = read(factors + 2 * apart, unit + 2 * apart, subgroup)
        d = read(factors + 3 * apart, unit + 3 * apart, subgroup)
        return row(a[0], b[0], c[0], d[0]), row(a[1], b[1], c[1], d[1]), row(a[2], b[2], c[2], d[2])

    return four if panels == 4 else one


def _float_tile(load_values, each: int, panels: int):
    """tile(…), as of `_product`, from floats. each: bytes of an input of 16 rows."""
    row = _row_of(load_values, panels)

    @njit(error_model="numpy")
    def tile(w, apart, width, x, _quant, out):
        sums = zeros(1, panels)
        for _ in range(width):
            for n in range(panels):
                prefetch(w + n * apart + AHEAD // panels, each)
            sums = outer(sums, x, 0, row(w, apart))
            x += 4
            w += each
        store_rows(sums, out, 0)

    return tile


def _row_of(load_values, panels: int):
    """row(address, apart) -> Tile(1, panels): what load_values gives there and, for four panels, further on."""
    make = vector_row(panels)

    @njit(error_model="numpy")
    def one(at, _apart):
        return make(load_values(at))

    @njit(error_model="numpy")
    def four(at, apart):
        return make(load_values(at), load_values(at + apart), load_values(at + 2 * apart), load_values(at + 3 * apart))

    return four if panels == 4 else one
