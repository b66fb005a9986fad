"""What a model needs of this machine: kernels for its encodings, ops for its program, memory for a context."""

from typing import Any

from sotol.backends.cpu.panels import panel_problems
from sotol.backends.cpu.running import backend as cpu
from sotol.backends.cpu.running.runner import panel_bytes
from sotol.backends.cpu.target import host_target
from sotol.errors import SotolError
from sotol.formats import Checkpoint
from sotol.kv.sizing import pool_sizes
from sotol.load_options import LoadOptions
from sotol.loading import DEFAULT_CONTEXT
from sotol.models import described, trace_model
from sotol.program.memory import group_caches
from sotol.quant import Encoding

__all__ = ["kernel_of", "level", "memory_at", "missing_of"]

FLOATS = ("F32", "F16", "BF16")


def level() -> str | None:
    """The CPU level that kernels run at here; None on a machine that sotol has none for."""
    try:
        return host_target().level
    except SotolError:
        return None


def kernel_of(encoding: Encoding, *, matrices: bool) -> str | None:
    """The kernel that multiplies with matrices of this encoding, by its parameters; None if there is none.

    matrices: whether there are any. Vectors are numbers of float32 wherever they are read.
    """
    if encoding.decode is None:
        return None
    if not matrices:
        return "float32 numbers"
    if encoding.integer is None:
        return f"linear {encoding.kind} f32" if encoding.kind in FLOATS else None
    if panel_problems(encoding.integer):
        return None
    return f"linear {encoding.kind} {'int8' if encoding.whole else 'f32'}"


def missing_of(checkpoint: Checkpoint) -> list[str]:
    """What of the model's program sotol can't run, a sentence each."""
    try:
        return cpu.missing(trace_model(checkpoint, context=1))
    except SotolError as error:
        return [str(error)]


def memory_at(checkpoint: Checkpoint, context: int | None = None) -> dict[str, Any]:
    """What a model that runs takes in memory for one sequence of so many tokens, but for work space, in bytes.

    context: None is that of `sotol run`. ValueError for one that the model was not made for.
    """
    most = described(checkpoint.metadata).find("context_length")
    if context is not None and isinstance(most, int) and context > most:
        raise ValueError(f"ctx is {context}, but the model was made for contexts of at most {most} tokens")
    tokens = context or min(most if isinstance(most, int) and most > 0 else DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    program = trace_model(checkpoint, tokens)
    groups = group_caches(program.caches())
    step = min(LoadOptions().step_tokens, tokens)
    blocks = pool_sizes(groups, tokens, context=tokens, step_tokens=step, sequences=1)
    cache = sum(count * size for count, size in zip(blocks, cpu.block_bytes(groups), strict=True))
    weights = panel_bytes(program)
    return {"context": tokens, "weights": weights, "cache": cache, "total": weights + cache}
