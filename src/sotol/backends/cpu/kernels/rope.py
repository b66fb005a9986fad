"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864). H heads, d head width, r rotated pairs of a head."""

from numba import njit

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import load_f32, load_i32, store_f32


@njit(error_model="numpy")
def copy(x, out, first, end):
    """Channels that do not rotate, one by one: a vector could reach into the next head."""
    for i in range(first, end, 4):
        store_f32(out + i, load_f32(x + i))


def rope(_target: Target, style: str) -> Kernel:
    """Rotate each pair by its position's angle; table: [positions, 2, r] cosines, then sines.

    "halves" pairs channel i with r + i (GPT-NeoX, Hugging Face), "pairs" 2 i with 2 i + 1 (Llama's own, GGUF llama),
    "middle" i with d / 2 + i (Gemma 4). A token's heads lie side by side, in rows `row` bytes apart. A piece is a row.
    """
    middle, stride = style == "middle", 2 if style == "pairs" else 1
    near, far = {"pairs": (1, 0), "halves": (0, 1), "middle": (0, 0)}[style]

    def pieces(a):
        return a.rows

    def piece(a, p):
        cosines = a.table + load_i32(a.positions + 4 * p) * a.pairs * 8
        sines = cosines + a.pairs * 4
        half = 4 * (a.width // 2)
        partner = half if middle else 4 * (near + far * a.pairs)
        for head in range(a.heads):
            place = p * a.row + head * a.width * 4
            x, out = a.x + place, a.out + place
            for i in range(a.pairs):
                at = 4 * stride * i
                u, v, c, s = (
                    load_f32(x + at),
                    load_f32(x + at + partner),
                    load_f32(cosines + 4 * i),
                    load_f32(sines + 4 * i),
                )
                store_f32(out + at, u * c - v * s)
                store_f32(out + at + partner, v * c + u * s)
            if middle:
                copy(x, out, 4 * a.pairs, half)
                copy(x, out, half + 4 * a.pairs, 4 * a.width)
            else:
                copy(x, out, 8 * a.pairs, 4 * a.width)

    return Kernel("rows:count heads width row pairs positions table x out", pieces, piece)
