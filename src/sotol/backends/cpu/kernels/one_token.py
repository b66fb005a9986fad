"""Products of a single token whose activations stay f32.

Each weight is used once: panels are read as they lie, far ahead of what is read a prefetch, and codes are decoded in
registers. A panel's sums would wait for one addition an input, so those of four panels take turns. Sums are those of
`linear.py`'s loops for several tokens, to the bit.
"""

from numba import njit

from sotol.backends.cpu.kernels.unpack import codes_of, scale_reader
from sotol.backends.cpu.layout import GROUP, VECTOR_BYTES
from sotol.backends.cpu.panels import Panel
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.dots import value_adder
from sotol.backends.cpu.vectors.simd import prefetch
from sotol.backends.cpu.vectors.tiles import outer, store_rows, vector_row, zeros

TOGETHER = 4  # panels whose sums take turns
AHEAD = 8192  # bytes between what one token reads and what it prefetches: a quarter of a small first-level cache


def values_of_one(target: Target, panel: Panel):
    """product(…), as of `linear.int8_product`, of one token, for packed codes."""
    return _product(lambda count: _packed_tile(target, panel, count))


def floats_of_one(load_values, each: int):
    """The same, for weights that are floats. each: bytes of an input of 16 rows."""
    return _product(lambda count: _float_tile(load_values, each, count))


def _product(make_tile):
    """product(…): TOGETHER panels at a time, and those that are left one by one.

    make_tile(n) -> tile(w, apart, width, x, out): n neighbouring panels, `apart` bytes from one to the next.
    """
    several, one = make_tile(TOGETHER), make_tile(1)

    @njit(error_model="numpy")
    def product(w, panels, apart, width, tokens):
        whole = panels // TOGETHER * TOGETHER
        for n in range(0, whole, TOGETHER):
            several(w + n * apart, apart, width, tokens.x, tokens.out + VECTOR_BYTES * n)
        for n in range(whole, panels):
            one(w + n * apart, apart, width, tokens.x, tokens.out + VECTOR_BYTES * n)

    return product


def group_share(panel: Panel) -> int:
    """Bytes to prefetch for a group: its codes, and its share of scales and factors."""
    return panel.size // (panel.units * panel.groups)


def _packed_tile(target: Target, panel: Panel, panels: int):
    """tile(w, apart, width, x, out), as of `_product`, from packed codes."""
    units, groups, header, unit_bytes = panel.units, panel.groups, panel.header_bytes, panel.unit_bytes
    values, factor_stride = panel.values, panel.subgroups * panel.factor_stride
    add_group, each = _values_adder(target, panel, panels), group_share(panel)

    @njit(error_model="numpy")
    def tile(w, apart, width, x, out):
        sums, ahead = zeros(1, panels), w + AHEAD // panels
        for _block in range(0, width, values):
            for u in range(units):
                for g in range(groups):
                    for n in range(panels):
                        prefetch(ahead + n * apart, each)
                    ahead += each
                    sums = add_group(sums, w + u * factor_stride, w + header + u * unit_bytes, apart, g, x)
                    x += 4 * GROUP
            w += header + units * unit_bytes
        store_rows(sums, out, 0)

    return tile


def _values_adder(target: Target, panel: Panel, panels: int):
    """add(sums, factors, unit, apart, g, x): one token's sums of so many panels, with group g of a unit."""
    codes_at, group_bytes, subgroups = panel.codes_at, panel.group_bytes, panel.subgroups
    add = value_adder(target.dot, codes_of(panel), panel.width, minimum=panel.minimum, zeros=panel.zeros)
    terms = _terms_of(scale_reader(target, panel), panels)

    @njit(error_model="numpy")
    def add_group(sums, factors, unit, apart, g, x):
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

    return four if panels == TOGETHER else one


def _float_tile(load_values, each: int, panels: int):
    """tile(…), as of `_product`, from floats. each: bytes of an input of 16 rows."""
    row = _row_of(load_values, panels)

    @njit(error_model="numpy")
    def tile(w, apart, width, x, out):
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

    return four if panels == TOGETHER else one
