"""The command with standard streams as callers leave them: closed, full, without a reader, in another encoding."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.tiny_model import tiny_model

from sotol import LLM

SOTOL = [sys.executable, "-m", "sotol"]
PATIENCE = 60.0  # seconds: nothing here may hang
CLOSED = "sotol: standard output is closed: there is no place for an answer\n"
FULL = "sotol: the output can't be written: no space left on device\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose kernels are compiled, so that no command says that it compiles them."""
    path = str(tiny_model(tmp_path_factory.mktemp("models")))
    LLM(path, threads=1).close()
    return path


def commands(model: str) -> dict[str, list[str]]:
    """One line of each command."""
    return {
        "help": ["--help"],
        "version": ["--version"],
        "run": ["run", model, "abc", "-n", "3", "--temp", "0", "-v"],
        "json": ["run", model, "abc", "-n", "3", "--temp", "0", "--json"],
        "info": ["info", model],
        "tokenize": ["tokenize", model, "abc"],
        "bench": ["bench", model, "-p", "4", "-n", "2", "-r", "1"],
        "profile": ["profile", model, "-p", "4", "-r", "1"],
        "cache": ["cache"],
        "completion": ["completion", "zsh"],
    }


NAMES = tuple(commands(""))


def shell(redirections: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command by a shell that redirects its streams."""
    line = f"{shlex.join([*SOTOL, *arguments])} {redirections}"
    return subprocess.run(
        ["sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


# ---- standard output


@pytest.mark.parametrize("name", NAMES)
def test_output_that_is_closed(name: str, model: str) -> None:
    done = shell(">&-", *commands(model)[name])
    assert (done.returncode, done.stderr) == (1, CLOSED)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("name", NAMES)
def test_output_that_is_full(name: str, model: str) -> None:
    done = shell(">/dev/full", *commands(model)[name])
    assert (done.returncode, done.stderr) == (1, FULL)


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_that_is_gone(name: str, model: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*SOTOL, *commands(model)[name]], stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE,
            check=False, timeout=PATIENCE,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_reader_that_leaves_in_the_middle(model: str) -> None:
    command = [*SOTOL, "run", model, "abc", "--ignore-eos", "-q"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(PATIENCE) in (0, 141)  # the answer may have ended before
        assert process.stderr.read() == b""


# ---- standard error


@pytest.mark.parametrize(("where", "name"), [*(("2>&-", name) for name in NAMES), ("2>/dev/full", "run")])
def test_errors_that_nobody_can_read(name: str, where: str, model: str) -> None:
    done = shell(where, *commands(model)[name])
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
def test_an_error_that_nobody_can_read_has_its_exit_code(where: str) -> None:
    done = shell(where, "run", "nowhere.gguf", "Hi")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


# ---- standard input


@pytest.mark.parametrize("where", ["<&-", "</dev/null", "0>/dev/null"])
def test_a_prompt_needs_no_input(where: str, model: str) -> None:
    expected = shell("", *commands(model)["run"][:-1])
    done = shell(where, *commands(model)["run"][:-1])
    assert (done.returncode, done.stdout, done.stderr) == (0, expected.stdout, "")


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        ("<&-", 2, "sotol: there is no standard input: give the text as an argument\n"),
        ("</dev/null", 2, "sotol: the prompt is empty: give it after the model, or on standard input\n"),
        ("0>/dev/null", 1, "sotol: standard input can't be read: bad file descriptor\n"),
        ("</dev/zero", 2, "sotol: standard input has more than 64 MB: no model takes that much\n"),
    ],
)
def test_without_a_prompt_there_must_be_one(where: str, code: int, said: str, model: str) -> None:
    done = shell(where, "run", model)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


def test_input_that_stays_open_is_waited_for_and_that_is_said(model: str) -> None:
    command = [*SOTOL, "run", model, "abc", "-n", "3", "--temp", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stderr.readline().startswith("sotol: waiting for the end of standard input")
        out, err = process.communicate("xyz", timeout=PATIENCE)
        assert (process.returncode, err) == (0, "")
    assert out == shell("", "run", model, "xyz\n\nabc", "-n", "3", "--temp", "0").stdout


LOCALES = [{"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"LC_ALL": "C.UTF-8"}, {"LC_ALL": "POSIX"},
           {"LC_ALL": "de_DE.ISO-8859-1"}]  # fmt: skip


@pytest.mark.parametrize("locale", LOCALES, ids=lambda locale: str(locale["LC_ALL"]))
def test_text_is_utf_8_in_every_locale(locale: dict[str, str], model: str) -> None:
    environment = os.environ | locale
    for data, code, out, err in (
        ("é日😀".encode(), 0, "é日😀", b""),
        (b"abc\xff", 2, "", b"sotol: standard input is not UTF-8 text: invalid start byte at byte 3\n"),
    ):
        done = subprocess.run(
            [*SOTOL, "tokenize", model, "--json"], input=data, capture_output=True, check=False, env=environment,
            timeout=PATIENCE,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (code, err)
        assert out in done.stdout.decode()
