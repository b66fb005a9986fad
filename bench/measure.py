"""Measures one model with one number of threads: engines take turns, rounds are kept, what fails is left out."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import Any

from bench.child import ROOT, Child, EngineError, last_line, seconds_to_output
from bench.engines import ENGINES
from bench.machine import Patience, crowded
from bench.rows import GROUPS, MEMORY, START, TOKENIZE, Group, Row

from sotol.formats import read_gguf
from sotol.tokenizers import Tokenizer

__all__ = ["Job", "Result", "measure", "slower"]

START_TEXT = (
    "The quick brown fox jumps over the lazy dog because the weather in France was very nice that day and everyone"
)
START_TOKENS = 16
LOADING = "loading"
HOPELESS = 0.75  # of a sibling's speed, in the first round: a setting that is not measured further
SETTLE = 0.05  # seconds until the threads of an engine sleep


@dataclass(frozen=True, slots=True)
class Job:
    """What to measure, and with what."""

    model: Path
    threads: int
    rounds: int
    rows: Sequence[str]  # names, of `rows.ROWS`
    pythons: Mapping[str, str]  # engine -> the Python that runs it
    environment: Mapping[str, str]  # variables for all of them
    patience: Patience
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """A row: what each round of each engine gave."""

    model: str
    threads: int
    row: str
    unit: str  # "tokens/s", of which more is better, or "s" or "MB", of which less is
    engines: Mapping[str, Sequence[float]]
    busy: Sequence[float] = ()  # cores that others used before each round
    about: Mapping[str, Any] = field(default_factory=dict)


def measure(job: Job, versions: dict[str, str], left_out: dict[str, str]) -> list[Result]:
    """All rows. Adds what engines say about themselves, and which failed at what and why."""
    results = []
    for group in GROUPS:
        wanted = [row for row in group.rows if row.name in job.rows]
        if wanted or (group.memory and MEMORY in job.rows):
            results += _group(job, group, wanted, versions, left_out)
    if START in job.rows:
        results.append(_start(job, left_out))
    if TOKENIZE in job.rows:
        results += _tokenize(job, left_out)
    return results


def slower(values: Mapping[str, Sequence[float]]) -> set[str]:
    """Engines whose setting was hopeless beside another one of the same family; values: tokens per second."""
    best: dict[str, float] = {}
    for name, speeds in values.items():
        best[ENGINES[name].family] = max(best.get(ENGINES[name].family, 0.0), *speeds)
    return {name for name, speeds in values.items() if max(speeds) < HOPELESS * best[ENGINES[name].family]}


def _command(job: Job, name: str, context: int, sequences: int) -> list[str]:
    size = [str(job.threads), str(context), str(sequences)]
    return [job.pythons[name], "-m", "bench.engines", name, str(job.model), *size]


def _group(
    job: Job, group: Group, rows: Sequence[Row], versions: dict[str, str], left_out: dict[str, str]
) -> list[Result]:
    """Rows of a group, and the memory that its engines have used."""
    metadata = read_gguf(job.model).metadata
    context: Any = metadata[f"{metadata['general.architecture']}.context_length"]
    vocabulary = len(Tokenizer.from_metadata(metadata, str(job.model)))
    if group.context > context:
        what, why = f"{job.model.name}, context of {group.context}", f"the model's own ends at {context}"
        left_out[what] = why
        job.say(f"{what} is left out: {why}")
        return []
    with ExitStack() as stack:
        children: dict[str, Child] = {}
        for name, kind in ENGINES.items():
            if name not in _able(job, left_out) or (group.sequences > 1 and not kind.batches):
                continue
            if kind.family == "plain read" and not any(row.bound for row in rows):
                continue
            try:
                child = Child(_command(job, name, group.context, group.sequences), job.environment)
            except EngineError as error:
                _drop(job, name, LOADING, error, left_out)
                continue
            children[name] = stack.enter_context(child)
            versions[name] = child.loaded["about"]
        results = [_row(job, row, vocabulary, children, left_out) for row in rows]
        if group.memory and MEMORY in job.rows:
            results.append(_memory(job, children, rows, vocabulary, left_out))
    return results


def _able(job: Job, left_out: Mapping[str, str]) -> list[str]:
    """Engines but those that could not load this model before."""
    return [name for name in job.pythons if f"{job.model.name}, {LOADING}: {name}" not in left_out]


def _drop(job: Job, name: str, what: str, error: EngineError, left_out: dict[str, str]) -> None:
    left_out[f"{job.model.name}, {what}: {name}"] = str(error)
    job.say(f"{name} is left out of {job.model.name}, {what}: {error}")


def _row(job: Job, row: Row, vocabulary: int, children: dict[str, Child], left_out: dict[str, str]) -> Result:
    """Each round, each engine in turn. One that fails is out of the group."""
    speeds: dict[str, list[float]] = {}
    busy = []
    hopeless = set[str]()
    for number in range(job.rounds):
        busy.append(job.patience.wait())
        command = row.command(vocabulary, number)
        for name, child in list(children.items()):
            if name in hopeless or (name == "plain read" and not row.bound):
                continue
            try:
                with crowded(job.threads) if row.busy else nullcontext():
                    seconds = child.ask(command)["seconds"]
            except EngineError as error:
                del children[name]
                speeds.pop(name, None)
                _drop(job, name, row.name, error, left_out)
                continue
            speeds.setdefault(name, []).append(round(row.tokens / seconds, 3))
            sleep(SETTLE)
        hopeless = hopeless or slower(speeds)
        last = ", ".join(f"{name} {values[-1]:.0f}" for name, values in speeds.items() if len(values) > number)
        job.say(f"{row.name}, round {number + 1} of {job.rounds}: {last} tokens/s (others: {busy[-1]} cores)")
    return Result(job.model.name, job.threads, row.name, "tokens/s", speeds, busy)


def _memory(
    job: Job, children: Mapping[str, Child], rows: Sequence[Row], vocabulary: int, left_out: dict[str, str]
) -> Result:
    """Peak memory after the group's rows, or after a prompt if there were none."""
    peaks, parts = {}, {}
    for name, child in children.items():
        if name == "plain read":
            continue
        try:
            if not rows:
                child.ask(GROUPS[0].rows[0].command(vocabulary, 0))
            answer = child.ask({"memory": True})
        except EngineError as error:
            _drop(job, name, MEMORY, error, left_out)
            continue
        peaks[name] = [round(answer.pop("peak") / 1e6, 1)]
        parts[name] = {part: round(size / 1e6, 1) for part, size in answer.items()}
    about = {"weights file": round(job.model.stat().st_size / 1e6, 1), "context": GROUPS[0].context, "parts": parts}
    return Result(job.model.name, job.threads, MEMORY, "MB", peaks, about=about)


def _start(job: Job, left_out: dict[str, str]) -> Result:
    """From a process's start to its first token: `sotol run`, and the others' bindings, which get ids."""
    ids, text = start_prompt(job.model)
    names = [name for name in _able(job, left_out) if name != "plain read"]
    commands = {name: [*_command(job, name, 1024, 1), "first", *map(str, ids)] for name in names}
    code = "from sotol.cli import main; main()"
    options = ["--raw", "-n", "1", "--temperature", "0", "--threads", str(job.threads), "--quiet"]
    commands["sotol"] = [job.pythons["sotol"], "-c", code, "run", str(job.model), text, *options]
    times: dict[str, list[float]] = {}
    busy = []
    for number in range(job.rounds + 1):  # the first brings all files into memory, and does not count
        busy.append(job.patience.wait())
        for name, command in list(commands.items()):
            try:
                seconds = seconds_to_output(command, job.environment)
            except EngineError as error:
                del commands[name]
                times.pop(name, None)
                _drop(job, name, START, error, left_out)
                continue
            if number:
                times.setdefault(name, []).append(round(seconds, 4))
        if number:
            last = ", ".join(f"{name} {values[-1]:.2f}" for name, values in times.items())
            job.say(f"{START}, round {number} of {job.rounds}: {last} s")
    return Result(job.model.name, job.threads, START, "s", times, busy[1:], {"tokens": len(ids)})


def start_prompt(model: Path) -> tuple[list[int], str]:
    """The longest beginning of START_TEXT, in words, that has at most 16 tokens; its ids."""
    tokenizer = Tokenizer.from_gguf(model)
    words = START_TEXT.split(" ")
    texts = [" ".join(words[:count]) for count in range(1, len(words) + 1)]
    prompts = [(list(tokenizer.encode(text)), text) for text in texts]
    return max(((ids, text) for ids, text in prompts if len(ids) <= START_TOKENS), key=lambda prompt: len(prompt[0]))


def _tokenize(job: Job, left_out: dict[str, str]) -> list[Result]:
    busy = [job.patience.wait()]
    command = [job.pythons["sotol"], "-m", "bench.tokenizing", str(job.model), str(job.rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        _drop(job, "tokenizers", TOKENIZE, EngineError(last_line(done.stderr)), left_out)
        return []
    answer = json.loads(done.stdout)
    best = {name: min(times) for name, times in answer["times"].items()}
    job.say(f"{TOKENIZE}: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in best.items()))
    return [Result(job.model.name, job.threads, TOKENIZE, "s", answer["times"], busy, {"same ids": answer["same"]})]
