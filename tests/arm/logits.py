"""Logits of small models, to be compared between kinds of CPU: the same files, the same tokens, another machine.

    python tests/arm/logits.py models FOLDER        write the models, with every encoding that kernels read
    python tests/arm/logits.py run FOLDER OUT.npz   their logits on this machine (SOTOL_CPU chooses the level)
    python tests/arm/logits.py compare OUT.npz …    exit status 1, and where they differ, unless all bits are the same

`make test-arm` runs the second on an emulated ARM64 (setup.sh). A module of its own, since pytest is not there.
"""

import argparse
import hashlib
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from tests.support.checkpoints import mixed_encodings, random_checkpoint, wide_sizes
from tests.support.layouts import layout_results
from tests.support.running import limits_for, run_text

from sotol.backends.cpu import CpuRunner
from sotol.backends.cpu.target import Target, host_target
from sotol.formats import Weight, read_gguf, write_gguf
from sotol.models import ARCHITECTURES, trace_model
from sotol.program.fuse import quantize_inputs
from sotol.quant import Float32Array

CONTEXT = 128
SIZES: dict[str, object] = {
    "block_count": 3,
    "context_length": CONTEXT,
    "embedding_length": 256,
    "feed_forward_length": 512,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "expert_feed_forward_length": 256,
    "expert_shared_feed_forward_length": 256,
}
OTHERS: dict[str, dict[str, object]] = {
    "gemma3": {"attention.sliding_window": 24, "block_count": 7, "final_logit_softcapping": 8.0},
    "cohere2": {"attention.sliding_window": 24, "block_count": 4},
    "mistral3": {"attention.temperature_scale": 0.1, "rope.scaling.original_context_length": 32},
}
ODD: dict[str, object] = {  # widths that are no whole vectors
    "embedding_length": 60,
    "feed_forward_length": 172,
    "attention.head_count": 5,
    "attention.head_count_kv": 5,
}
CHUNKS = (70, 1, 1, 9)  # a prompt that is no multiple of any tile, two single tokens, a few more


def write_models(folder: Path) -> None:
    """A small random model of each architecture, its matrices in all encodings in turn; and one of odd widths."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.gguf"):
        old.unlink()
    for number, name in enumerate(ARCHITECTURES):
        sizes = SIZES | OTHERS.get(name, {}) | wide_sizes(name)
        checkpoint = random_checkpoint(name, sizes, optional=name != "gemma3")
        mixed = mixed_encodings(checkpoint, first=number)
        write_gguf(folder / f"{name}.gguf", mixed.metadata, mixed.weights.values())
    odd = random_checkpoint("qwen3", SIZES | ODD, optional=True)
    halves = [
        Weight.from_values(w.name, w.decode(), "F16" if len(w.shape) == 2 else "F32") for w in odd.weights.values()
    ]
    write_gguf(folder / "odd.gguf", odd.metadata, halves)


def run(folder: Path, out: Path) -> None:
    """Every model in every precision, and the kernels on layouts that no file has, on two threads."""
    results, begin = dict[str, Float32Array](), time.monotonic()
    for name, logits in logits_of(folder, threads=2, target=host_target()):
        results[name] = logits
        say(f"{platform.machine()} {host_target().level}: {name}, {time.monotonic() - begin:.0f} s")
    results |= layout_results(host_target(), threads=2)
    say(f"{platform.machine()} {host_target().level}: layouts, {time.monotonic() - begin:.0f} s")
    np.savez(out, allow_pickle=False, **results)


def logits_of(folder: Path, *, threads: int, target: Target) -> Iterator[tuple[str, Float32Array]]:
    """The models' logits [T, V], by the name of the model and the precision."""
    text = np.random.default_rng(5).integers(0, 48, sum(CHUNKS)).tolist()
    for path in sorted(folder.glob("*.gguf")):
        exact = trace_model(read_gguf(path), CONTEXT)
        for precision, program in (("int8", quantize_inputs(exact)), ("f32", exact)):
            limits = limits_for(program, CONTEXT)
            with closing(CpuRunner(program, limits, threads=threads, target=target)) as runner:
                logits = run_text(runner, text, CHUNKS)
            assert np.isfinite(logits).all()
            yield f"{path.stem} {precision}", logits


def compare(files: Sequence[Path]) -> int:
    """1 if any file's bits differ from the first one's."""
    first, *others = (dict(np.load(file)) for file in files)
    status = 0
    for file, other in zip(files[1:], others, strict=True):
        for name, expected in first.items():
            different = np.flatnonzero((expected.view(np.int32) != other[name].view(np.int32)).any(axis=1))
            if different.size:
                status = 1
                say(f"{name}: {file.name} differs from {files[0].name} in {different.size} rows, first {different[0]}")
    if not status:
        digest = hashlib.sha256(b"".join(first[name].tobytes() for name in sorted(first)))
        say(f"the same bits in {', '.join(file.stem for file in files)}: {len(first)} results, "
            f"SHA-256 {digest.hexdigest()[:16]}")  # fmt: skip
    return status


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("what", choices=["models", "run", "compare"])
    parser.add_argument("paths", nargs="+", type=Path)
    options = parser.parse_args()
    if options.what == "models":
        write_models(options.paths[0])
    elif options.what == "run":
        run(*options.paths)
    else:
        return compare(options.paths)
    return 0


if __name__ == "__main__":
    sys.exit(main())
