"""Ctrl-C is quiet and ends with 130 at any moment: while modules are imported, a model loads, an answer comes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.tiny_model import tiny_model

from sotol import LLM

PATIENCE = 60.0  # seconds: nothing here may hang

# The command, which gets SIGINT when a Python function of this module's choice is called for the n-th time.
AT = """
import os, signal, sys
place, count = sys.argv[1], int(sys.argv[2])
del sys.argv[1:3]
left = [count]
def watch(frame, event, _argument):
    if event == "call" and place in f"{frame.f_code.co_filename}:{frame.f_code.co_name}":
        left[0] -= 1
        if not left[0]:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGINT)
from sotol.cli import main
sys.setprofile(watch)
main()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose kernels are compiled, so that no command says that it compiles them."""
    path = str(tiny_model(tmp_path_factory.mktemp("models")))
    LLM(path, threads=1).close()
    return path


def run(place: str, count: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", AT, place, str(count), *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("streams.py:put_in_order", 1),
        ("<frozen importlib._bootstrap>:acquire", 5),  # before the commands are there
        ("<frozen importlib._bootstrap>:acquire", 200),
        ("<frozen importlib._bootstrap>:release", 300),
        ("<frozen importlib._bootstrap>:cb", 100),  # a weak reference's callback
        ("cli/app.py:main", 1),
        ("cli/run.py:run", 1),
        ("sotol/llm.py:__init__", 1),
        ("sotol/loading.py:load", 1),
        ("sotol/loading.py:_tokenizer", 1),
        ("stream.py:_next", 2),
        ("cli/output.py:write_piece", 2),
        ("guard.py:ended", 1),
        ("interrupts.py:at_once", 2),
    ],
)
def test_it_is_quiet_at_any_moment(place: str, count: int, model: str) -> None:
    done = run(place, count, "run", model, "abc", "--temp", "0", "--ignore-eos", "-q")
    assert (done.returncode, done.stderr) == (130, "")


def test_a_second_one_ends_at_once(model: str) -> None:
    """Though the first is still being answered: its place is where the first raises."""
    command = [sys.executable, "-c", AT, "stream.py:close", "1", "run", model, "abc", "--ignore-eos", "-q"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b""


def test_a_job_that_ignores_it_goes_on(model: str) -> None:
    """As shells start what runs in the background of a script."""
    script = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    python = [sys.executable, "-c"]
    command = [*python, script, *python, AT, "cli/run.py:run", "1", "run", model, "abc", "-n", "2"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM can't be handled there")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("place", ["cli/bars.py:bars", "whole_file.py:write", "whole_file.py:finish"])
def test_tools_leave_nothing_half_done(place: str, name: str, code: int, model: str, tmp_path: Path) -> None:
    arguments = ["quantize", model, str(tmp_path / "out.gguf"), "Q8_0"]
    done = subprocess.run(
        [sys.executable, "-c", AT.replace("SIGINT", name), place, "1", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, "sotol: interrupted: no file was written\n")
    assert list(tmp_path.iterdir()) == []
