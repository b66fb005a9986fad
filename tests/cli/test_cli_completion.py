"""Shells complete commands, options, models and paths: what a shell's script asks for, and a real bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Sotol

COMMAND = [sys.executable, "-m", "sotol"]


def offered(words: str, folder: Path) -> set[str]:
    """What bash is told for a command line, of which the last word is incomplete."""
    split = words.split(" ")
    environment = os.environ | {
        "_SOTOL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(split) - 1),
    }  # fmt: skip
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=True, env=environment, cwd=folder, timeout=60)
    return set(done.stdout.split())


def test_what_is_offered(tmp_path: Path) -> None:
    (tmp_path / "smart.gguf").touch()
    (tmp_path / "smoke.txt").touch()
    assert offered("sotol pro", tmp_path) == {"profile"}
    assert offered("sotol run --rep", tmp_path) == {"--repeat-penalty", "--repeat-last-n"}
    assert offered("sotol run sm", tmp_path) == {"smollm2", "smart.gguf"}
    assert offered("sotol info -", tmp_path) >= {"--json", "--help"}
    assert offered("sotol run -m smo", tmp_path) == {"smollm2"}
    assert offered("sotol run /etc/", tmp_path) == set()  # the shell offers paths by itself then
    assert offered("sotol cache ", tmp_path) == {"show", "clear"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_scripts(shell: str, sotol: Sotol) -> None:
    result = sotol("completion", shell)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"complete_{shell}" in result.stdout
    if shell != "powershell" and (program := shutil.which(shell)):
        subprocess.run([program, "-n"], input=result.stdout, text=True, check=True)


def test_an_unknown_shell(sotol: Sotol) -> None:
    result = sotol("completion", "tcsh")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'tcsh'" in result.stderr


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_a_real_bash_learns_it(tmp_path: Path) -> None:
    (tmp_path / "sotol").symlink_to(Path(sys.executable).with_name("sotol"))
    script = """
    eval "$(sotol completion bash)"
    COMP_WORDS=(sotol run smo) COMP_CWORD=2
    _sotol_completion sotol
    echo "${COMPREPLY[@]}"
    """
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("smollm2\n", "")
