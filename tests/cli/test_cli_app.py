"""Start-up, versions, usage errors."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Sotol
from tests.support.tiny_model import tiny_model

from sotol import __version__

HEAVY = {"numpy", "rich", "prompt_toolkit", "jinja2", "llvmlite", "numba"}


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(option: str, sotol: Sotol) -> None:
    result = sotol(option)
    assert (result.exit_code, result.stdout) == (0, f"sotol {__version__}\n")


def test_as_a_module() -> None:
    command = [sys.executable, "-m", "sotol", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"sotol {__version__}\n"


def test_without_arguments_it_helps(sotol: Sotol) -> None:
    assert sotol().stdout == sotol("--help").stdout
    assert sotol().exit_code == 0


def test_the_list_of_commands_is_whole_in_80_columns(sotol: Sotol) -> None:
    assert "..." not in sotol("--help").stdout.split("Commands:")[1]


def test_help_needs_none_of_the_heavy_modules() -> None:
    code = (
        "import sys\nfrom sotol.cli import main\ntry:\n    main()\nexcept SystemExit:\n"
        f"    print('heavy:', *({HEAVY} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code, "run", "--help"], capture_output=True, text=True, check=True)
    assert "--temperature" in done.stdout
    assert done.stdout.endswith("heavy:\n")


def test_an_answer_needs_none_of_the_slow_modules(tmp_path: Path) -> None:
    """What the time to the first token must not contain: a model's own template would add Jinja, a bar Rich."""
    slow = {"asyncio", "concurrent.futures", "email", "importlib.metadata", "jinja2", "numba", "numpy.random",
            "prompt_toolkit", "regex", "rich", "statistics"}  # fmt: skip
    code = (
        "import sys\nfrom sotol.cli import main\ntry:\n    main()\nexcept SystemExit as end:\n"
        f"    print('slow:', end.code, *({slow} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, "run", str(tiny_model(tmp_path)), "abc", "--raw", "-n", "1", "--temp", "0"]

    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("slow: 0\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--nonsense"], "no such option: --nonsense"),
        (["run", "--sed", "1"], "no such option: --sed; did you mean --seed"),
        (["run", "--tempp", "1"], "did you mean --temp or"),
        (["run", "--max-token", "1"], "did you mean --max-tokens"),
        (["runn"], "no such command 'runn'; did you mean 'run'?"),
        (["--verzion"], "did you mean --version"),
        (["chat"], "no such command 'chat'; did you mean 'run'?"),
        (["help"], "no such command 'help'; did you mean '--help'?"),
        (["quantise"], "no such command 'quantise'; did you mean 'quantize'?"),
        (["run", "smollm2", "hi", "-n", "many"], "'many'"),
        (["run", "smollm2", "hi", "-n"], "'-n' requires an argument"),
        (["run", "smollm2", "hi", "-t", "0.7"], "a temperature is --temp"),
        (["run", "smollm2", "hi", "-t", "-1"], "-1 is less than 0"),
        (["run", "smollm2", "hi", "-o", "temperature"], "'-o' requires 2 arguments"),
        (["bench", "-r", "0"], "'-r': 0 is not in the range"),
        (["cache", "away"], "'away'"),
        (["run", "--\x1b[31mred"], "no such option: --"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(arguments: list[str], said: str, sotol: Sotol) -> None:
    result = sotol(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("sotol: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr
