"""`sotol run` in a pseudo-terminal: streaming, Ctrl-C, colours and bars, as a person meets them."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
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
def terminal(
    folder: Path, *arguments: str, command: Sequence[str] = COMMAND, columns: int = 80, **variables: str
) -> Iterator[Terminal]:
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    environment = os.environ | {"XDG_STATE_HOME": str(folder), "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
    environment |= variables
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [*command, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
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
        screen.wait_for("smollm2: /\\? lists commands, Ctrl-D quits")
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


def test_an_editor_of_the_users_choice(tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "edited" >> "$1"\n')
    editor.chmod(0o755)
    with terminal(tmp_path, "run", "smollm2", VISUAL=str(editor)) as screen:
        for keys in ("\x07", "\x18\x05"):
            screen.wait_for(READY)
            screen.press("/first ")
            screen.press(keys)
            screen.wait_for("edited")
            screen.press("\r")
            screen.wait_for("unknown command /first")
        screen.wait_for(READY)
        screen.press("bye\r")
        assert screen.finish() == 0


# A shell in small: it runs sotol as a job of its own in the terminal, says when that has stopped, and lets it go on.
SHELL = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen(sys.argv[1:], process_group=0)
os.tcsetpgrp(0, job.pid)
_, status = os.waitpid(job.pid, os.WUNTRACED)
print("stopped by", os.WSTOPSIG(status) if os.WIFSTOPPED(status) else status, flush=True)
os.tcsetpgrp(0, job.pid)
os.killpg(job.pid, signal.SIGCONT)
sys.exit(job.wait())
"""


def test_ctrl_z_suspends(tmp_path: Path) -> None:
    shell = [sys.executable, "-c", SHELL, *COMMAND]
    with terminal(tmp_path, "run", "smollm2", command=shell) as screen:
        screen.wait_for(READY)
        screen.press("\x1a")
        screen.wait_for(f"stopped by {signal.SIGTSTP.value}\\b")
        screen.wait_for(READY)
        screen.press("/context\r")
        screen.wait_for("0 messages of 0 tokens")
        screen.wait_for(READY)
        screen.press("\x04")
        assert screen.finish() == 0


def test_words_stay_whole(tmp_path: Path) -> None:
    """The same words in a narrow terminal and in a pipe; without word wrap, the terminal gets them as the pipe does."""
    asked = ("run", "smollm2", "Tell me a long story.", "--quiet", "--temp", "0", "-n", "60")
    plain = subprocess.run([*COMMAND, *asked], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    with terminal(tmp_path, *asked, "--nowordwrap", columns=30) as screen:
        assert screen.finish() == 0
        assert screen.shown.replace("\r\n", "\n") == plain.stdout
    with terminal(tmp_path, *asked, columns=30) as screen:
        assert screen.finish() == 0
    lines = seen(screen.shown)
    assert max(map(len, lines)) < 30
    assert " ".join(lines).split() == plain.stdout.split()


def seen(written: str) -> list[str]:
    """The lines that a terminal would show, which knows newlines, moving left and erasing to the end."""
    lines, column = [""], 0
    for text in re.findall(r"\x1b\[\d*[A-Z]|\r\n|.", written):
        if text == "\r\n":
            lines, column = [*lines, ""], 0
        elif text.endswith("D") and len(text) > 1:
            column -= int(text[2:-1])
        elif text == "\x1b[K":
            lines[-1] = lines[-1][:column]
        else:
            lines[-1] = lines[-1][:column] + text + lines[-1][column + 1 :]
            column += 1
    return lines


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
