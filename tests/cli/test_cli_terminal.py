"""`sotol run` in a pseudo-terminal: streaming, Ctrl-C, colours and bars, as a person meets them."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-c", "from sotol.cli import main; main()"]
READY = r"\x1b\[\?2004h"  # what prompt_toolkit writes when it begins to read keys; those pressed before may be lost
PATIENCE = 60.0  # seconds until something must have come


class Terminal:
    """A process whose input and output are a terminal."""

    def __init__(self, process: "subprocess.Popen[bytes]", file: int) -> None:
        self.process, self._file, self.shown = process, file, ""

    def press(self, keys: str) -> None:
        os.write(self._file, keys.encode())

    def wait_for(self, pattern: str) -> None:
        """Read until what has been shown since the last match matches."""
        end = time.monotonic() + PATIENCE
        while not (match := re.search(pattern, self.shown)):
            assert time.monotonic() < end, f"no {pattern!r} in {self.shown!r}"
            self._read()
        self.shown = self.shown[match.end() :]

    def finish(self) -> int:
        """The exit code; what was shown until the end is kept."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        if not select.select([self._file], [], [], PATIENCE)[0]:
            return False
        try:
            data = os.read(self._file, 4096)
        except OSError:  # Linux: the other side is closed
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


@contextmanager
def terminal(folder: Path, *arguments: str) -> Iterator[Terminal]:
    mine, theirs = pty.openpty()
    environment = os.environ | {"XDG_STATE_HOME": str(folder), "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(theirs), os.O_RDWR)),  # it becomes the controlling terminal
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(process, mine)
    finally:
        process.kill()
        process.wait()
        os.close(mine)


def test_a_conversation(tmp_path: Path) -> None:
    with terminal(tmp_path, "run", "smollm2", "--ignore-eos") as screen:
        screen.wait_for("smollm2: /help lists commands, Ctrl-D quits")
        screen.wait_for(READY)
        screen.press("Tell me a long story.\r")
        screen.wait_for(r"(?s)story\.\x1b.*\x1b\[\?2004l\w+")  # the prompt is over, the answer has begun
        screen.press("\x03")
        screen.wait_for("stopped")
        screen.wait_for(READY)
        screen.press("/context\r")
        screen.wait_for("2 messages of")
        screen.wait_for(READY)
        screen.press("/verb\t")
        screen.wait_for("ose")
        screen.press("\r")
        screen.wait_for("statistics after each answer: on")
        screen.wait_for(READY)
        screen.press("\x03")
        screen.wait_for("Ctrl-D or /quit ends sotol")
        screen.wait_for(READY)
        screen.press("\x04")
        assert screen.finish() == 0
    assert "+Tell me a long story.\n" in (tmp_path / "sotol" / "history").read_text()


def test_ctrl_c_ends_a_single_answer(tmp_path: Path) -> None:
    with terminal(tmp_path, "run", "smollm2", "Tell me a long story.", "--ignore-eos") as screen:
        screen.wait_for(r"\w+ \w+ \w+")
        screen.press("\x03")
        assert screen.finish() == 130
    assert "Traceback" not in screen.shown


def test_json_and_raw_want_a_prompt(tmp_path: Path) -> None:
    for option in ("--json", "--raw"):
        with terminal(tmp_path, "run", "smollm2", option) as screen:
            assert screen.finish() == 2
        assert screen.shown.startswith("sotol: --raw and --json need a prompt: ")
        assert screen.shown.count("\n") == 1


def test_styles_and_none(tmp_path: Path) -> None:
    for option, styled in ((), True), (("--no-color",), False):
        with terminal(tmp_path, "info", "smollm2", *option) as screen:
            assert screen.finish() == 0
        assert ("\x1b[" in screen.shown) == styled
