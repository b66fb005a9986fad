"""Tokens per second of sotol and of llama.cpp on the same file, side by side.

    python bench/peers.py [MODEL …] [--threads N …] [--rounds 4] [--json FILE] [--llama-python PYTHON]

Machines drift by a third within minutes, so the engines take turns, round after round, each in a process of its own
(`engines.py`) that sleeps while another is measured. Token ids are the same for all; nothing is sampled. The best and
the median of the rounds are shown; the ratio is of the bests. llama.cpp runs with flash attention and without, and the
faster of the two counts, test by test. A round waits for a quiet machine, and says how busy it was in the end.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any

from sotol.backends.cpu.target import levels
from sotol.backends.cpu.threads import default_threads
from sotol.catalog import find_model
from sotol.cli.workload import pseudo_random_ids

__all__ = ["TESTS", "Result", "busy_cores", "compare", "show", "started", "wait_until_quiet"]

PARITY = Path(os.environ.get("SOTOL_PARITY", Path.home() / ".cache" / "sotol-parity"))
OURS, PEERS = "sotol", ("llama.cpp", "llama.cpp-flash")
PROMPT, ANSWER, SHORT = 512, 64, 8  # tokens
QUIET = 0.15  # cores that others may use

Times = Mapping[str, Sequence[float]]  # test -> seconds of each round


@dataclass(frozen=True, slots=True)
class Test:
    """What is timed: the prompt's or the answer's tokens, of which run."""

    name: str
    prompt: int  # tokens of the prompt
    part: str  # "prompt" or "answer"
    tokens: int  # that are timed


TESTS = (
    Test(f"prefill {PROMPT}", PROMPT, "prompt", PROMPT),
    Test(f"decode {ANSWER} after {SHORT}", SHORT, "answer", ANSWER),
    Test(f"decode {ANSWER} after {PROMPT}", PROMPT, "answer", ANSWER),
)


@dataclass(frozen=True, slots=True)
class Result:
    """One model with one number of threads: tokens per second of every round, and cores in use before each."""

    model: str
    threads: int
    busy: Sequence[float]
    about: Mapping[str, str]  # engine -> its version
    speeds: Mapping[str, Mapping[str, Sequence[float]]]  # test -> engine -> tokens per second

    def peer(self, test: str) -> str:
        """The faster form of llama.cpp."""
        return max(PEERS, key=lambda name: max(self.speeds[test][name]))

    def ratio(self, test: str) -> float:
        """Our best round over the peer's best."""
        return max(self.speeds[test][OURS]) / max(self.speeds[test][self.peer(test)])


class Child:
    """An engine in its process."""

    def __init__(self, python: str, name: str, model: Path, threads: int) -> None:
        command = [python, str(Path(__file__).with_name("engines.py")), name, str(model), str(threads), "1024"]
        pipe = subprocess.PIPE
        self.name, self._python = name, python
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        loaded = self._read()
        self.about, self.vocabulary = str(loaded["about"]), int(loaded["vocabulary"])

    def run(self, prompt: Sequence[int], answer: Sequence[int]) -> Mapping[str, float]:
        """Seconds of "prompt" and "answer"."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompt": prompt, "answer": answer}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise SystemExit(f"{self.name} does not run under {self._python}: see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process: its input ends."""
        self._process.communicate()


@contextmanager
def started(python: str, name: str, model: Path, threads: int) -> Iterator[Child]:
    """An engine, loaded by this Python. SystemExit where it does not run; the engine itself has said why."""
    child = Child(python, name, model, threads)
    try:
        yield child
    finally:
        child.close()


def compare(model: Path, threads: int, rounds: int, llama_python: str, patience: float) -> Result:
    """Measure a model: each round, each engine runs a long and a short prompt, in turn."""
    times: dict[str, dict[str, list[float]]] = {test.name: {} for test in TESTS}
    busy = []
    pythons = {OURS: sys.executable, **dict.fromkeys(PEERS, llama_python)}
    with ExitStack() as stack:
        engines = [stack.enter_context(started(python, name, model, threads)) for name, python in pythons.items()]
        vocabulary = min(engine.vocabulary for engine in engines)
        prompt = pseudo_random_ids(PROMPT, vocabulary)
        answer = pseudo_random_ids(ANSWER, vocabulary, seed=7)
        for engine in engines:  # touches all memory once
            engine.run(prompt, answer[:2])
        for _ in range(rounds):
            busy.append(wait_until_quiet(patience))
            for length in (PROMPT, SHORT):
                for engine in engines:
                    seconds = engine.run(prompt[:length], answer)
                    for test in TESTS:
                        if test.prompt == length:
                            speed = test.tokens / seconds[test.part]
                            times[test.name].setdefault(engine.name, []).append(speed)
                    sleep(0.05)  # until its threads sleep
        about = {engine.name: engine.about for engine in engines}
    return Result(model.name, threads, busy, about, times)


def busy_cores(seconds: float = 0.5) -> float:
    """Cores in use by all, over some seconds in which we sleep. From /proc/stat (proc(5)); NaN on other systems."""

    def read() -> tuple[int, int]:
        jiffies = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(jiffies), jiffies[3] + jiffies[4]

    if not Path("/proc/stat").exists():
        return float("nan")
    total, idle = read()
    sleep(seconds)
    total_now, idle_now = read()
    return (1 - (idle_now - idle) / max(1, total_now - total)) * (os.cpu_count() or 1)


def wait_until_quiet(patience: float) -> float:
    """Wait until others use no more than QUIET cores, or `patience` seconds have passed; how many they use."""
    begin = monotonic()
    while (busy := busy_cores()) > QUIET and monotonic() - begin < patience:
        sleep(0.5)
    return round(busy, 2)


def show(result: Result) -> str:
    """A result as a table."""
    busy = f"{min(result.busy):.2f} to {max(result.busy):.2f}"
    lines = [
        f"{result.model}, threads: {result.threads}, rounds: {len(result.busy)}, others used {busy} cores",
        f"{'tokens/s':22}{'sotol best':>11}{'median':>9}{'llama.cpp best':>16}{'median':>9}  {'flash':6}{'ratio':>6}",
    ]
    for test, speeds in result.speeds.items():
        peer = result.peer(test)
        ours, theirs = speeds[OURS], speeds[peer]
        flash = "on" if peer.endswith("flash") else "off"
        lines.append(
            f"{test:22}{max(ours):11.1f}{median(ours):9.1f}{max(theirs):16.1f}{median(theirs):9.1f}  {flash:6}"
            f"{result.ratio(test):6.2f}"
        )
    return "\n".join(lines)


def processor() -> str:
    """The CPU's name, and the levels of sotol's kernels that it has."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [x for x in cpuinfo.read_text().split("\n") if x.startswith("model name")] if cpuinfo.exists() else []
    name = names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} CPUs, levels {' '.join(levels())}"


def model_path(name: str) -> Path:
    """A path, `gemma3` of `make parity`, or a name that sotol knows."""
    return PARITY / "models" / "gemma3.gguf" if name == "gemma3" else find_model(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", nargs="*", help="paths or names (smollm2, and gemma3 where `make parity` put it)")
    parser.add_argument("--threads", type=int, action="append", help="may be repeated (the physical cores)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--patience", type=float, default=60, help="seconds a round waits for a quiet machine (60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--llama-python", metavar="PYTHON", help="has llama-cpp-python (this one, or make parity's)")
    options = parser.parse_args()
    here = find_spec("llama_cpp") is not None
    llama_python = options.llama_python or (sys.executable if here else str(PARITY / "venv" / "bin" / "python"))
    if not Path(llama_python).exists():
        parser.error(f"no {llama_python}: run `make parity`, or name a Python that has llama-cpp-python")
    names = options.models or ["smollm2", *(["gemma3"] if model_path("gemma3").exists() else [])]
    print(processor())
    results = []
    for model in map(model_path, names):
        for threads in options.threads or [default_threads()]:
            results.append(compare(model, threads, options.rounds, llama_python, options.patience))
            if len(results) == 1:
                print(*dict.fromkeys(results[0].about.values()), sep="\n")
            print(f"\n{show(results[-1])}\nload {os.getloadavg()[0]:.2f}", flush=True)
    if options.json:
        record = {"processor": processor(), "results": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
