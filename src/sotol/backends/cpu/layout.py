"""Sizes that kernels and the code that prepares their arguments must agree on. A change here reaches both.

Imports nothing of Numba, since a start with compiled kernels reads this file, too.
"""

__all__ = [
    "BLOCK_KEYS",
    "CACHE_LINE",
    "CODEC_BYTES",
    "GROUP",
    "LANES",
    "LATENT",
    "MOST_EXPERTS",
    "MOST_TAPS",
    "PANELS_TOGETHER",
    "PLANES",
    "QUAD_BLOCKS",
    "QUANT_RECORD",
    "SPAN",
    "SPAN_EXTRA",
    "TAPE_ENTRY",
    "VECTOR_BYTES",
    "WIDEST_HEAD",
    "padded",
    "parse_fields",
    "place_in_plane",
]

LANES = 16  # f32 of a vector on every CPU; rows of a panel
VECTOR_BYTES = 4 * LANES
GROUP = 32  # inputs that share an activation scale (`program.ops.GROUP`), and whose weights are packed together
# Bytes of an activation group's record: its scale, the sum of its 32 int8 and those of either half, as f32; then -128
# times these sums, as i32. (A power of two would have rows' records compete for the same lines of the cache.)
QUANT_RECORD = 28
PANELS_TOGETHER = 2  # of which a product of many tokens makes one tile, on some CPUs: pieces have a multiple
WIDEST_HEAD = 576  # channels: attention keeps query rows and their sums on the stack
MOST_EXPERTS = 1024  # of a layer: routing keeps a token's scores on the stack
MOST_TAPS = 8  # of a convolution: its inputs before a step's are on the stack
BLOCK_KEYS = LANES  # keys of a cache block (`program.memory.BLOCK_TOKENS`): K is stored as [d, 16], a lane for each key
QUAD_BLOCKS = 4  # blocks for which attention updates the softmax's running maximum once: 64 keys
SPAN = 256  # keys whose weighted sums attention computes apart, before it merges them
SPAN_EXTRA = 2 * LANES  # f32 at the end of a span record: the running maximum, and the sum of weights, as vectors
LATENT = "latent"  # the codec of values that are the first channels of their keys, and not stored
CODEC_BYTES = {"f16": 2, "f32": 4, LATENT: 0}  # of a cached number, by codec
# By the bits of a code: the planes that it is cut into, lowest bits first. A plane has a cut of all codes of a group.
PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}
TAPE_ENTRY = 24  # bytes of an op on the tape: its kernel, its arguments, whether it is the last one of its phase
CACHE_LINE = 64  # bytes. Each op's counters have one of their own, so that threads at different ops share none

assert SPAN % (QUAD_BLOCKS * BLOCK_KEYS) == 0, "a span is whole quads"
assert (LANES, GROUP) == (16, 32), "simd.py's LLVM names say 16 lanes; panels.py packs a group as eight vectors"

Field = tuple[str, str]  # name, kind: "int" (a number or an address), "f32", "count" (the address of a number)


def padded(width: int) -> int:
    """The width of a row in memory: whole vectors."""
    return -(-width // LANES) * LANES


def place_in_plane(bits: int, j: int) -> tuple[int, int]:
    """Where vector j (of 8) of a group is in a plane of so many bits: the plane's vector of 64 bytes, and the bit."""
    return (j % 4, j // 4 * 4) if bits == 4 else divmod(j * bits, 8)


def parse_fields(text: str) -> tuple[Field, ...]:
    """The fields of an argument block: "rows:count x eps:f32" -> (("rows", "count"), ("x", "int"), ("eps", "f32"))."""
    pairs = (word.partition(":") for word in text.split())
    return tuple((name, kind or "int") for name, _, kind in pairs)
