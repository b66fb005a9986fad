"""exp, log, sin, cos and sums in float64 that give the same bits on every machine.

NumPy's own functions differ between CPUs in the last bits: it has other code, and another order of summing, for AVX2,
AVX-512 and NEON. The functions here use only +, -, *, / and rounding, which IEEE 754 defines to the bit, each in its
own NumPy call, so that no multiply-add is fused. Method and constants are fdlibm's (Sun Microsystems 1993, e_exp.c,
e_log.c, k_sin.c, k_cos.c), except for the reduction by pi/2, which is Cody and Waite's, for arguments up to 1e7.

Sampling and the tables of RoPE use these; kernels have their own exp, in float32.
"""

import numpy as np
import numpy.typing as npt

from sotol.arrays import Float64Array, Int64Array

__all__ = ["cos", "exp", "log", "sin", "sincos", "total"]

LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # ln 2; the first has 32 bits
INV_LN2 = 1.44269504088896338700e00
EXP_P = (1.66666666666666019037e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05,
         -1.65339022054652515390e-06, 4.13813679705723846039e-08)  # fmt: skip
LOG_P = (6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
         1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01)  # fmt: skip
SIN_P = (-1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04,
         2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10)  # fmt: skip
COS_P = (4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
         -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11)  # fmt: skip
# pi/2 = the sum of these; the first three have 30 bits each, so their products with k < 2**23 are exact
HALF_PI = (1.570796325802803, 9.920935791635221e-10, 5.17018297889025e-19, 2.9038559739793605e-28)
LARGEST_ANGLE = 1e7


def exp(x: npt.ArrayLike) -> Float64Array:
    """e**x elementwise, within 1 ulp (2 where the result is subnormal); overflow gives inf, underflow 0, NaN stays."""
    x = np.asarray(x, np.float64)
    safe = np.clip(x, -746.0, 710.0)  # beyond these, the result is 0 or inf anyway; clip keeps NaN
    nan = np.isnan(safe)
    if nan.any():
        safe = np.where(nan, 0.0, safe)
    k = np.rint(safe * INV_LN2)
    high, low = safe - k * LN2_HIGH, k * LN2_LOW
    r = high - low  # |r| <= 0.5 ln 2
    c = r - r * r * _polynomial(EXP_P, r * r)
    y = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
    n = k.astype(np.int64)
    half = n >> 1  # multiply by two powers of two, since 2**n itself may be beyond the range of normal numbers
    with np.errstate(over="ignore", under="ignore"):
        y = y * _power_of_two(half) * _power_of_two(n - half)
    return np.where(nan, x, y) if nan.any() else y


def log(x: npt.ArrayLike) -> Float64Array:
    """The natural logarithm elementwise, within 1 ulp; log(0) is -inf, the logarithm of a negative number NaN."""
    x = np.asarray(x, np.float64)
    usable = (x > 0) & (x < np.inf)
    tiny = usable & (x < 2.0**-1022)  # subnormal: scale it first, so that its exponent bits are valid
    scaled = np.where(usable, x, 1.0) * np.where(tiny, 2.0**54, 1.0)
    bits = np.asarray(scaled).view(np.int64)
    fraction = bits & 0x000FFFFFFFFFFFFF
    above = (fraction >= 0x0006A09E667F3BCD).astype(np.int64)  # brings the mantissa into [sqrt(1/2), sqrt(2))
    k = ((bits >> 52) - 1023 + above - 54 * tiny).astype(np.float64)
    mantissa = (fraction | ((1023 - above) << 52)).view(np.float64)
    f = mantissa - 1.0
    s = f / (2.0 + f)
    z = s * s
    half_square = 0.5 * f * f
    remainder = z * _polynomial(LOG_P, z)
    y = k * LN2_HIGH - ((half_square - (s * (half_square + remainder) + k * LN2_LOW)) - f)
    special = np.where(x == 0, -np.inf, np.where(x == np.inf, np.inf, np.nan))
    return np.where(usable, y, special)


def sincos(x: npt.ArrayLike) -> tuple[Float64Array, Float64Array]:
    """Sine and cosine elementwise, within 1 ulp, for |x| <= 1e7 radians; ValueError beyond, and for NaN."""
    x = np.asarray(x, np.float64)
    if not (np.abs(x) <= LARGEST_ANGLE).all():
        raise ValueError(f"an angle is beyond {LARGEST_ANGLE:g} radians or is not a number")
    k = np.rint(x * (2 / np.pi))
    # r + tail = x - k pi/2, |r| <= pi/4; the first difference is exact, the next two keep their rounding errors
    r, error_2 = _two_sum(x - k * HALF_PI[0], -k * HALF_PI[1])
    r, error_3 = _two_sum(r, -k * HALF_PI[2])
    r, tail = _two_sum(r, (error_2 + error_3) - k * HALF_PI[3])
    z = r * r
    cube = z * r
    sine = r - ((z * (0.5 * tail - cube * _polynomial(SIN_P[1:], z)) - tail) - cube * SIN_P[0])
    half = 0.5 * z
    w = 1.0 - half
    cosine = w + (((1.0 - w) - half) + (z * (z * _polynomial(COS_P, z)) - r * tail))
    quadrant = k.astype(np.int64) & 3
    odd = (quadrant & 1) == 1
    sin_part, cos_part = np.where(odd, cosine, sine), np.where(odd, sine, cosine)
    return np.where(quadrant >= 2, -sin_part, sin_part), np.where(
        (quadrant == 1) | (quadrant == 2), -cos_part, cos_part
    )


def sin(x: npt.ArrayLike) -> Float64Array:
    """Sine elementwise; see `sincos`."""
    return sincos(x)[0]


def cos(x: npt.ArrayLike) -> Float64Array:
    """Cosine elementwise; see `sincos`."""
    return sincos(x)[1]


def total(x: npt.ArrayLike, axis: int = -1) -> Float64Array:
    """The sum along one axis, as a fixed tree: the second half is added to the first until one number is left.

    The order depends only on the length (np.sum's depends on the CPU). The error grows with the length's logarithm.
    """
    x = np.moveaxis(np.asarray(x, np.float64), axis, -1)
    if x.shape[-1] == 0:
        return np.zeros(x.shape[:-1])
    while (n := x.shape[-1]) > 1:
        half = (n + 1) // 2
        folded = x[..., :half].copy()
        folded[..., : n - half] += x[..., half:]
        x = folded
    return x[..., 0].copy()


def _polynomial(coefficients: tuple[float, ...], z: Float64Array) -> Float64Array:
    """c0 + c1 z + c2 z**2 + …, by Horner's rule."""
    y = np.full_like(z, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        y *= z
        y += c
    return y


def _power_of_two(n: Int64Array) -> Float64Array:
    """2.0**n elementwise for -1022 <= n <= 1023, by writing the exponent's bits."""
    return np.asarray((n + 1023) << 52).view(np.float64)


def _two_sum(a: Float64Array, b: Float64Array) -> tuple[Float64Array, Float64Array]:
    """The rounded sum and its rounding error, exactly (Knuth, TAOCP 2, 4.2.2)."""
    s = a + b
    part = s - a
    return s, (a - (s - part)) + (b - part)
