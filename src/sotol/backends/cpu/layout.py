"""What kernels and the code that sets them up must agree on. Knows nothing of Numba: a warm start reads it too."""

__all__ = ["CODEC_BYTES", "QUANT_RECORD", "SPAN", "SUMS_EXTRA", "WIDEST_HEAD", "padded", "parse_fields"]

LANES = 16  # f32 of a vector on every CPU
QUANT_RECORD = 16  # bytes of an activation group's record: f32 scale, sum of its 32 int8, sums of either half
WIDEST_HEAD = 512  # channels: attention keeps rows on the stack
SPAN = 256  # keys that attention sums apart
SUMS_EXTRA = 2 * LANES  # f32 after a row's sums over a span: its maximum and its sum of weights, as vectors
CODEC_BYTES = {"f16": 2, "f32": 4}  # of a cached number, by codec

Field = tuple[str, str]  # name, kind: "int" (a number or an address), "f32", "count" (the address of a number)


def padded(width: int) -> int:
    """The width that rows of this many numbers have in memory: whole vectors."""
    return -(-width // LANES) * LANES


def parse_fields(text: str) -> tuple[Field, ...]:
    """The fields of an argument block: "rows:count x eps:f32" -> (("rows", "count"), ("x", "int"), ("eps", "f32"))."""
    pairs = (word.partition(":") for word in text.split())
    return tuple((name, kind or "int") for name, _, kind in pairs)
