"""An engine in a process of its own, in its own Python: commands in, times out. It sleeps meanwhile."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from threading import Timer
from time import perf_counter
from types import TracebackType
from typing import Any, Self

__all__ = ["LONGEST", "Child", "EngineError", "seconds_to_output"]

ROOT = Path(__file__).parents[1]
LONGEST = 300.0  # seconds that one command may take


class EngineError(Exception):
    """An engine that did not do what it was asked, and why."""


class Child:
    """A process that answers lines of JSON with lines of JSON."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], longest: float = LONGEST) -> None:
        """The first answer, `loaded`, comes without a question. EngineError where it does not come."""
        pipe = subprocess.PIPE
        self._longest, self._errors = longest, TemporaryFile()  # noqa: SIM115 (closed in `close`)
        try:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **environment}, stdin=pipe, stdout=pipe, stderr=self._errors
            )
        except OSError as error:
            self._errors.close()
            raise EngineError(f"{command[0]}: {error.strerror}") from None
        self.loaded = self._answer()

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a command. EngineError if the process ends instead, or takes too long."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # there will be no answer
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = Timer(self._longest, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        late = not timer.is_alive()
        timer.cancel()
        if not line:
            why = f"it took more than {self._longest:.0f} s" if late else self._complaint()
            self.close()
            raise EngineError(why)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _complaint(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        return last_line(self._errors.read()) or f"it ended with code {code}"

    def close(self) -> None:
        """End the process: its input ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._process.kill()
        self.close()


def last_line(output: bytes) -> str:
    """The last line that says something, cut short."""
    lines = [line.strip() for line in output.decode(errors="replace").split("\n")]
    return next((line[:200] for line in reversed(lines) if line), "")


def seconds_to_output(command: Sequence[str], environment: Mapping[str, str], longest: float = LONGEST) -> float:
    """Seconds from a process's start to the first byte that it prints; it is left to end. EngineError if it fails."""
    with TemporaryFile() as errors:
        begin = perf_counter()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        timer = Timer(longest, process.kill)
        timer.start()
        assert process.stdout is not None
        with process.stdout:
            first = process.stdout.read(1)
            seconds = perf_counter() - begin
            process.stdout.read()
        code = process.wait()
        timer.cancel()
        errors.seek(0)
        if code or not first:
            raise EngineError(last_line(errors.read()) or f"it ended with code {code}")
    return seconds
