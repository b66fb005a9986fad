"""What each encoding costs a model, as sotol and as llama.cpp quantise it: bits, perplexity, divergence, time.

    python -m bench.quantize [MODEL] [--encoding NAME ...] [--mix NAME ...] [--windows 24] [--threads N]
                             [--folder FOLDER] [--json FILE]

A model's weights are decoded to F32, which is the baseline. An encoding goes to all matrices whose rows are whole
blocks of it, and the others stay F32; a mix goes to all, as its rules say. Each is made with and without an importance
matrix, by sotol and by llama.cpp (ggml_quantize_chunk, llama_model_quantize of llama-cpp-python), and all are run by
sotol, with activations in float32: so only weights differ. Divergences are from the baseline's predictions. Times are
of the CPU, of all threads together, so that others who use the machine disturb them little.

A ratio of two divergences has a standard error, by windows: both files are scored on the same ones, whose divergences
rise and fall together, so that it is smaller than the errors of the two (Cochran, Sampling Techniques, 1977, 6.4: the
ratio of two sums, linearised; of 8 windows that are much unlike it is up to a fifth too small). A ratio of 1.02 +- 0.02
may well be one of 1.

Texts are pages of this repository: importance is collected on the one half, predictions are scored on the other. With
--folder, what is made of the model alone is kept there for the next time: the model in F32, its importance matrix, its
predictions. With --json, rows are written as they are measured, and those that the file has are not measured again.
"""

import argparse
import ctypes
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, NamedTuple

import numpy as np
from bench.machine import busy_cores, processor

from sotol.arrays import Float32Array, UInt8Array
from sotol.backends.cpu.running.fitting import Encoder
from sotol.backends.cpu.running.threads import default_threads
from sotol.backends.cpu.target import host_target
from sotol.catalog import find_model
from sotol.formats import Checkpoint, read_gguf
from sotol.formats.files import in_memory
from sotol.formats.gguf_writer import write_gguf
from sotol.formats.weights import Weight
from sotol.quant import ENCODINGS, WEIGHTED, Encoding
from sotol.tools.activations import collect
from sotol.tools.baseline import Baseline, scored
from sotol.tools.importance import Importance, read_importance, write_importance
from sotol.tools.mixes import MIXES, quantisable
from sotol.tools.perplexity import Scores, perplexity
from sotol.tools.quantize import NEEDS_IMPORTANCE, quantize

__all__ = ["Row", "measure", "ratio_of"]

ROOT = Path(__file__).parents[1]
READ = ("docs/cli.md", "docs/server.md", "docs/python.md", "CHANGELOG.md")
SCORED = ("docs/architecture.md", "docs/performance.md", "README.md", "CONTRIBUTING.md")
PART = 1500  # characters of a page, about a window of tokens
SINGLE = (
    "Q8_0", "Q6_K", "Q5_1", "Q5_K", "Q5_0", "Q4_1", "Q4_K", "Q4_0", "IQ4_NL", "NVFP4", "IQ4_XS", "MXFP4", "Q3_K",
    "IQ3_S", "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XS", "Q2_0", "IQ2_XXS", "TQ2_0", "IQ1_M", "TQ1_0", "IQ1_S", "Q1_0",
)  # fmt: skip


class Row(NamedTuple):
    """What was measured of one file, or of one encoding's files."""

    model: str
    name: str  # of the encoding or mix
    importance: bool
    bits: float  # of each weight that was quantised; of a mix, of all
    perplexity: float
    divergence: float
    peer_perplexity: float | None  # llama.cpp's
    peer_divergence: float | None
    ratio_error: float | None  # standard error of the ratio of the two divergences
    nanoseconds: float  # of all threads together, for each weight
    peer_nanoseconds: float | None
    windows: int  # that were scored


class Measured(NamedTuple):
    """How well a file predicts."""

    perplexity: float
    divergence: float
    windows: tuple[float, ...]  # the mean divergence of each


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """The ratio of the means of two files' divergences in the same windows, and its standard error."""
    count, mean = len(ours), sum(theirs) / len(theirs)
    ratio = sum(ours) / sum(theirs)
    off = [our - ratio * their for our, their in zip(ours, theirs, strict=True)]
    if count < 2:
        return ratio, math.inf
    return ratio, math.sqrt(sum(x * x for x in off) / (count - 1) / count) / mean


def text(pages: Sequence[str]) -> str:
    """The pages, in turn some paragraphs of each, so that any number of windows has some of all."""
    parts = [list(_parts((ROOT / page).read_text())) for page in pages]
    return "\n\n".join(part for turn in zip_longest(*parts, fillvalue="") for part in turn if part)


def _parts(page: str) -> Iterator[str]:
    """Whole paragraphs of at least so many characters, until the page ends."""
    some = list[str]()
    for paragraph in page.split("\n\n"):
        some.append(paragraph)
        if sum(map(len, some)) >= PART:
            yield "\n\n".join(some)
            some.clear()
    if some:
        yield "\n\n".join(some)


class Peer:
    """llama.cpp, through the package llama_cpp."""

    def __init__(self, threads: int) -> None:
        import llama_cpp  # noqa: PLC0415  (not everyone who measures sotol has it)

        self._lib, self._threads = llama_cpp.llama_cpp, threads
        folder = Path(llama_cpp.__file__).parent / "lib"
        ggml = ctypes.CDLL(str(folder / "libggml-base.so"))
        self._chunk, self._prepare = ggml.ggml_quantize_chunk, ggml.ggml_quantize_init
        self._chunk.restype = ctypes.c_size_t
        self._silent = self._lib.llama_log_callback(lambda *_: None)
        self._lib.llama_log_set(self._silent, ctypes.c_void_p(0))

    def prepare(self, encoding: Encoding) -> None:
        """Have ggml make the tables that it encodes with, which takes seconds for grids."""
        self._prepare(encoding.ggml_type)

    def encode(self, encoding: Encoding, x: Float32Array, importance: Float32Array | None) -> UInt8Array:
        """Rows [N, K] by one thread, as ggml encodes them."""
        x = np.ascontiguousarray(x, np.float32)
        out = np.zeros((len(x), x.shape[1] // encoding.values * encoding.size), np.uint8)
        given = None if importance is None else np.ascontiguousarray(importance, np.float32)
        address = ctypes.c_void_p(None if given is None else given.ctypes.data)
        rows, width = ctypes.c_int64(len(x)), ctypes.c_int64(x.shape[1])
        source, to = ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(out.ctypes.data)
        self._chunk(encoding.ggml_type, source, to, ctypes.c_int64(0), rows, width, address)
        return out

    def quantize(self, source: Path, out: Path, mix: str, importance: Importance | None) -> None:
        """The whole model by a mix."""
        lib = self._lib
        settings = lib.llama_model_quantize_default_params()
        settings.nthread, settings.ftype, settings.allow_requantize = self._threads, MIXES[mix].file_type, True
        kept = list[object]()
        if importance is not None:
            entries = (lib.llama_model_imatrix_data * (len(importance.sums) + 1))()
            for entry, name in zip(entries, importance.sums, strict=False):
                means = np.ascontiguousarray(importance.of(name), np.float32)
                kept.append(means)
                entry.name, entry.size = name.encode(), means.size
                entry.data = ctypes.cast(means.ctypes.data, ctypes.POINTER(ctypes.c_float))
            settings.imatrix = entries
        if lib.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(settings)):
            raise RuntimeError(f"llama.cpp can't quantise {source} as {mix}")


class Bench:
    """Measurements of one model."""

    def __init__(self, model: Path, folder: Path, windows: int, threads: int, peer: Peer | None) -> None:
        self._folder, self._threads, self._peer, self.name = folder, threads, peer, model.stem
        source, importance, self._baseline = (folder / name for name in ("source.gguf", "importance.gguf", "baseline"))
        if not source.exists():
            quantize(read_gguf(model), source, encoding="F32", allow_requantize=True, threads=threads)
        if not importance.exists():
            found = collect(source, text(READ), dataset="docs", precision="f32", threads=threads)
            write_importance(importance, found)
        if not self._baseline.exists():
            perplexity(
                source, text(SCORED), most=windows, save=self._baseline, precision="f32", threads=threads
            )  # fmt: skip
        self._source, self._importance = source, read_importance(importance)
        self._checkpoint: Checkpoint = read_gguf(source)
        known = Baseline.open(self._baseline)
        self.windows = min(windows, len(known.windows))
        size = known.windows.shape[1]
        each, last = np.arange(scored(size)), size - scored(size)
        losses = [-known.rows(i)[each, known.windows[i, last:]].mean() for i in range(self.windows)]
        self.perplexity = math.exp(sum(losses) / self.windows)

    def single(self, name: str, *, weighted: bool) -> Row:
        """An encoding for all matrices that can have it."""
        encoding = ENCODINGS[name]
        bits, encoder = 8 * encoding.size / encoding.values, Encoder([(encoding, False), (encoding, True)])
        made, each = self._encoded(encoding, encoder.encode, weighted=weighted)
        ours = self._scores_of(made)
        row = self._row(name, bits, ours, each, weighted=weighted)
        if self._peer is None:
            return row
        self._peer.prepare(encoding)
        theirs, each = self._encoded(encoding, self._peer.encode, weighted=weighted)
        same = all(np.array_equal(made[weight].rows(), theirs[weight].rows()) for weight in made)
        return beside(row, ours, ours if same else self._scores_of(theirs), each)

    def mix(self, name: str, *, weighted: bool) -> Row:
        """A mix for the whole model; the time has decoding and writing in it, too."""
        importance = self._importance if weighted else None
        out, begin = self._folder / "out.gguf", process_time()
        made = quantize(self._checkpoint, out, mix=name, importance=importance, threads=self._threads)
        seconds, ours = process_time() - begin, self._scores(out)
        row = self._row(name, 8 * made.after / made.values, ours, 1e9 * seconds / made.values, weighted=weighted)
        if self._peer is None:
            return row
        begin = process_time()
        self._peer.quantize(self._source, out, name, importance)
        seconds = process_time() - begin
        return beside(row, ours, self._scores(out), 1e9 * seconds / made.values)

    def _row(self, name: str, bits: float, ours: Measured, nanoseconds: float, *, weighted: bool) -> Row:
        """Without llama.cpp."""
        return Row(
            self.name, name, weighted, bits, ours.perplexity, ours.divergence, None, None, None, nanoseconds, None,
            self.windows,
        )  # fmt: skip

    def _encoded(self, encoding: Encoding, encode: Any, *, weighted: bool) -> tuple[dict[str, Weight], float]:
        """All matrices whose rows are whole blocks of an encoding, in it, and nanoseconds for each number."""
        made, seconds, count = dict[str, Weight](), 0.0, 0
        for weight in self._checkpoint.weights.values():
            if not quantisable(weight) or weight.shape[-1] % encoding.values:
                continue
            values = in_memory(weight).decode()
            importance = self._importance.of(weight.name) if weighted else None
            begin = process_time()
            data = encode(encoding, values, importance)
            seconds, count = seconds + process_time() - begin, count + values.size
            made[weight.name] = Weight.from_bytes(weight.name, encoding, weight.shape, data.reshape(-1))
        return made, 1e9 * seconds / count

    def _scores_of(self, made: Mapping[str, Weight]) -> Measured:
        """Of the model with these weights."""
        out = self._folder / "out.gguf"
        weights = [made.get(w.name, w) for w in self._checkpoint.weights.values()]
        write_gguf(out, self._checkpoint.metadata, weights, types=self._checkpoint.types)
        return self._scores(out)

    def _scores(self, path: Path) -> Measured:
        sums = [0.0]

        def told(_window: int, scores: Scores) -> None:
            assert scores.divergence is not None
            sums.append(scores.divergence.mean * scores.windows)

        scores = perplexity(
            path, None, baseline=self._baseline, most=self.windows, precision="f32", threads=self._threads, told=told
        )
        assert scores.divergence is not None
        return Measured(scores.perplexity, scores.divergence.mean, tuple(b - a for a, b in pairwise(sums)))


def beside(row: Row, ours: Measured, theirs: Measured, nanoseconds: float) -> Row:
    """The row with llama.cpp's numbers."""
    return row._replace(
        peer_perplexity=theirs.perplexity, peer_divergence=theirs.divergence,
        ratio_error=ratio_of(ours.windows, theirs.windows)[1], peer_nanoseconds=nanoseconds,
    )  # fmt: skip


Key = tuple[str, str, bool, int]  # model, encoding or mix, whether with importance, windows


def measure(bench: Bench, encodings: Sequence[str], mixes: Sequence[str], known: Mapping[Key, Row]) -> Iterator[Row]:
    """All of a model, one after the other; but what is known already."""
    for names, way, weighable in ((encodings, bench.single, WEIGHTED), (mixes, bench.mix, MIXES)):
        for name in names:
            for weighted in (False, True):
                if name in weighable if weighted else name not in NEEDS_IMPORTANCE:
                    key = bench.name, name, weighted, bench.windows
                    yield known[key] if key in known else way(name, weighted=weighted)


def shown(row: Row) -> str:
    """A line of a table in Markdown."""
    peer, ratio, speed = "-", "-", "-"
    if row.peer_divergence is not None and row.ratio_error is not None:
        peer, ratio = f"{row.peer_divergence:.5f}", f"{row.divergence / row.peer_divergence:.3f}"
        ratio += f" ± {row.ratio_error:.3f}" if row.ratio_error else ""
    if row.peer_nanoseconds is not None:
        speed = f"{row.peer_nanoseconds:.1f}"
    cells = (
        row.name + (" with importance" if row.importance else ""), f"{row.bits:.2f}", f"{row.perplexity:.3f}",
        f"{row.divergence:.5f}", peer, ratio, f"{row.nanoseconds:.1f}", speed,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def rows_of(file: Path) -> dict[Key, Row]:
    """The rows that a file of --json has, or none where there is no such file."""
    rows = [Row(**row) for row in json.loads(file.read_text())["rows"]] if file.exists() else []
    return {(row.model, row.name, row.importance, row.windows): row for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", nargs="?", default="smollm2", help="a GGUF file, or a name (smollm2)")
    parser.add_argument("--encoding", action="append", choices=list(ENCODINGS), help="instead of those that are usual")
    parser.add_argument("--mix", action="append", choices=list(MIXES), help="instead of Q4_K_M and others")
    parser.add_argument("--windows", type=int, default=24, help="of 512 tokens that are scored, at most (24)")
    parser.add_argument("--threads", type=int, default=default_threads(), help="(the physical cores)")
    parser.add_argument("--alone", action="store_true", help="without llama.cpp")
    parser.add_argument("--folder", type=Path, help="where the model in F32 and its predictions are kept")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep all numbers, and don't measure again what it has"
    )
    options = parser.parse_args()
    singles = options.encoding or ([] if options.mix else SINGLE)
    mixes = options.mix or ([] if options.encoding else ("Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K"))
    peer = None if options.alone else Peer(options.threads)
    rows, busy = {} if options.json is None else rows_of(options.json), busy_cores()
    record: Mapping[str, object] = {"processor": processor(), "level": host_target().level, "busy": busy}
    print(f"{processor()}, level {host_target().level}, {options.threads} threads; others used {busy:.2f} cores")
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(find_model(options.model), folder, options.windows, options.threads, peer)
        print(f"\n{bench.name}: perplexity of the baseline {bench.perplexity:.3f}\n")
        print("| | bits | perplexity | divergence | llama.cpp's | ratio | ns a weight | llama.cpp's |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for row in measure(bench, singles, mixes, rows.copy()):
            rows[row.model, row.name, row.importance, row.windows] = row
            print(shown(row), flush=True)
            if options.json is not None:
                every = [row._asdict() for row in rows.values()]
                options.json.write_text(json.dumps({**record, "rows": every}, indent=1) + "\n")


if __name__ == "__main__":
    main()
