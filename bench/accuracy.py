"""How far logits are from exact ones: mean KL divergence over a text, of sotol and of llama.cpp, on the same files.

    python bench/accuracy.py MODEL.gguf … [--runner sotol …] [--text FILE] [--tokens 512] [--cache FOLDER] [--json]

Exact is the NumPy reference in float64 on exactly decoded weights; its logits are kept in the cache folder, since they
take a minute. Where llama_cpp is not installed, leave its runners out. T tokens, V vocabulary.
"""

import argparse
import ctypes
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sotol.backends.cpu import CpuRunner
from sotol.backends.reference import ReferenceRunner
from sotol.formats import is_hub_model, read_model
from sotol.models import trace_model
from sotol.program.fuse import quantize_inputs
from sotol.program.memory import group_caches
from sotol.program.program import Program
from sotol.program.step import BLOCK_TOKENS, Limits, Step, Table
from sotol.tokenizers import Tokenizer

__all__ = ["RUNNERS", "TEXT", "exact_logits", "llama_cpp_logits", "mean_kl", "sotol_logits", "text_ids"]

TEXT = Path(__file__).parents[1] / "tests" / "data" / "text.txt"
Logits = npt.NDArray[np.floating[Any]]  # [T, V]


def text_ids(model: Path, text: str, count: int = 512) -> list[int]:
    """The first tokens of a text in the model's own vocabulary, led by its bos if it wants one.

    ValueError for a text that is too short.
    """
    tokenizer = Tokenizer.from_folder(model) if is_hub_model(model) else Tokenizer.from_gguf(model)
    ids = tokenizer.encode(text)
    if len(ids) < count:
        raise ValueError(f"the text has {len(ids)} tokens for {model.name}, not {count}")
    return ids[:count]


def mean_kl(p: Logits, q: Logits) -> float:
    """The mean over rows of KL(softmax p || softmax q), in float64 and in nats."""
    return float(np.mean([_kl(a, b) for a, b in zip(p, q, strict=True)]))


def _kl(p: Logits, q: Logits) -> float:
    a, b = _log_softmax(p), _log_softmax(q)
    return float(np.sum(np.exp(a) * (a - b)))


def _log_softmax(row: Logits) -> npt.NDArray[np.float64]:
    x = row.astype(np.float64)
    x -= x.max()
    x -= np.log(np.sum(np.exp(x)))
    return x


def exact_logits(model: Path, ids: Sequence[int], cache: Path) -> Logits:
    """The float64 reference's logits, rounded to float32; from the cache folder, if they are there."""
    digest = hashlib.sha256(np.asarray(ids, np.int32).tobytes())
    for part in read_model(model).parts or (model,):
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    kept = cache / f"exact-{model.stem}-{digest.hexdigest()[:16]}.npy"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        program = trace_model(read_model(model), len(ids))
        step, limits = _whole(program, ids)
        logits = ReferenceRunner(program, limits, np.float64, np.float64).run(step)["logits"]
        started = kept.with_suffix(".partial.npy")
        np.save(started, logits.astype(np.float32))
        started.replace(kept)
    loaded: Logits = np.load(kept, mmap_mode="r")
    return loaded


def sotol_logits(
    model: Path, ids: Sequence[int], *, precision: str = "int8", codec: str = "f16", threads: int | None = None
) -> Logits:
    """The CPU backend's, the text in one step."""
    program = trace_model(read_model(model), len(ids))
    program = quantize_inputs(program) if precision == "int8" else program
    step, limits = _whole(program, ids)
    with closing(CpuRunner(program, limits, threads=threads, codecs=codec)) as runner:
        return np.array(runner.run(step)["logits"])


def _whole(program: Program, ids: Sequence[int]) -> tuple[Step, Limits]:
    """The text as one step, each token with logits."""
    count, blocks = len(ids), -(-len(ids) // BLOCK_TOKENS)
    numbers = np.arange(count, dtype=np.int32)
    table = Table(np.arange(blocks, dtype=np.int32)[None], np.zeros(1, np.int32))
    groups = len(group_caches(program.caches()))  # the only sequence's state is in the first of its blocks
    step = Step(np.asarray(ids, np.int32), numbers, np.array([0, count], np.int32), (table,) * groups, numbers)
    return step, Limits(count, 1, count, count, (blocks,) * groups)


def llama_cpp_logits(
    model: Path, ids: Sequence[int], *, flash: bool = False, codec: str = "f16", threads: int = 2
) -> Logits:
    """llama.cpp's, the text in one batch, through llama-cpp-python's low-level bindings."""
    import llama_cpp.llama_cpp as lib  # noqa: PLC0415 (not everyone who measures sotol has it)

    silent = lib.llama_log_callback(lambda *_: None)
    lib.llama_log_set(silent, ctypes.c_void_p(0))
    lib.llama_backend_init()
    settings = lib.llama_model_default_params()
    settings.n_gpu_layers = 0
    loaded = lib.llama_model_load_from_file(str(model).encode(), settings)
    if not loaded:
        raise RuntimeError(f"llama.cpp does not load {model}")
    options = lib.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = len(ids)
    options.n_threads = options.n_threads_batch = threads
    options.flash_attn_type = int(flash)
    options.type_k = options.type_v = {"f32": 0, "f16": 1}[codec]  # numbers of GGML's types
    context = lib.llama_init_from_model(loaded, options)
    batch = lib.llama_batch_init(len(ids), 0, 1)
    try:
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
        if lib.llama_decode(context, batch):
            raise RuntimeError(f"llama.cpp can't run {model}")
        width = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(loaded))
        return np.ctypeslib.as_array(lib.llama_get_logits(context), (len(ids), width)).copy()
    finally:
        lib.llama_batch_free(batch)
        lib.llama_free(context)
        lib.llama_model_free(loaded)
        lib.llama_log_set(lib.llama_log_callback(), ctypes.c_void_p(0))


RUNNERS: dict[str, Callable[[Path, Sequence[int]], Logits]] = {
    "sotol": sotol_logits,
    "sotol-f32": lambda model, ids: sotol_logits(model, ids, precision="f32", codec="f32"),
    "sotol-f32-f16-cache": lambda model, ids: sotol_logits(model, ids, precision="f32", codec="f16"),
    "llama.cpp": llama_cpp_logits,
    "llama.cpp-flash": lambda model, ids: llama_cpp_logits(model, ids, flash=True),
}


def table(models: Iterable[Path], runners: Sequence[str], text: str, count: int, cache: Path) -> list[dict[str, Any]]:
    """For each model and runner: KL from exact, KL from llama.cpp (if it ran before), and how often the best agrees."""
    lines = []
    for model in models:
        ids = text_ids(model, text, count)
        exact, peer = exact_logits(model, ids, cache), None
        for name in sorted(runners, key=lambda name: not name.startswith("llama.cpp")):
            logits = RUNNERS[name](model, ids)
            peer = logits if name == "llama.cpp" else peer
            lines.append(
                {
                    "model": model.name,
                    "runner": name,
                    "kl_from_exact": mean_kl(exact, logits),
                    "kl_from_llama_cpp": None if peer is None else mean_kl(peer, logits),
                    "same_best": float(np.mean(exact.argmax(axis=1) == logits.argmax(axis=1))),
                }
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--runner", action="append", choices=list(RUNNERS), help="which to run (all)")
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("SOTOL_PARITY", ".")) / "logits")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    text = options.text.read_text()
    lines = table(options.models, options.runner or list(RUNNERS), text, options.tokens, options.cache)
    if options.json:
        print(json.dumps(lines, indent=1))
        return
    print(f"{'model':36} {'runner':20} {'KL from exact':>14} {'from llama.cpp':>14} {'same best':>9}")
    for line in lines:
        peer = "" if line["kl_from_llama_cpp"] is None else f"{line['kl_from_llama_cpp']:.3e}"
        name, runner, exact = line["model"][:36], line["runner"], line["kl_from_exact"]
        print(f"{name:36} {runner:20} {exact:14.3e} {peer:>14} {line['same_best']:9.3f}")


if __name__ == "__main__":
    main()
