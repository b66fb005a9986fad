"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864). H heads, d head width, r rotated pairs of a head."""

from sotol.backends.cpu.kernel import Kernel
from sotol.backends.cpu.target import Target
from sotol.backends.cpu.vectors.simd import load_f32, load_i32, store_f32


def rope(_target: Target, style: str) -> Kernel:
    """Rotate each pair by its position's angle; table: [positions, 2, r] cosines, then sines.

    "halves" pairs channel i with r + i (GPT-NeoX, Hugging Face), "pairs" 2 i with 2 i + 1 (Llama's own, GGUF llama).
    A token's heads lie side by side, in rows `row` bytes apart. A piece is a row.
    """
    near, far, stride = {"pairs": (1, 0, 2), "halves": (0, 1, 1)}[style]

    def pieces(a):
        return a.rows

    def piece(a, p):
        cosines = a.table + load_i32(a.positions + 4 * p) * a.pairs * 8
        sines = cosines + a.pairs * 4
        partner = 4 * (near + far * a.pairs)
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
            for i in range(8 * a.pairs, 4 * a.width, 4):  # one by one: a vector could reach into the next head
                store_f32(out + i, load_f32(x + i))  # channels that do not rotate

    return Kernel("rows:count heads width row pairs positions table x out", pieces, piece)
