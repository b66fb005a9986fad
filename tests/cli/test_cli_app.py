"""Start-up, versions, usage errors."""

import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Sotol
from tests.support.tiny_model import tiny_model

from sotol import __version__

HEAVY = {"numpy", "rich", "prompt_toolkit", "jinja2", "llvmlite", "numba"}


def test_version(sotol: Sotol) -> None:
    result = sotol("--version")
    assert (result.exit_code, result.stdout) == (0, f"sotol {__version__}\n")


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
    command = [sys.executable, "-c", code, "run", str(tiny_model(tmp_path)), "abc", "--raw", "-n", "1", "-t", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("slow: 0\n")


def test_a_wrong_option_is_exit_code_2(sotol: Sotol) -> None:
    for arguments in (
        ["run", "--nonsense"],
        ["nonsense"],
        ["run", "smollm2", "hi", "-n", "many"],
        ["bench", "-r", "0"],
    ):
        result = sotol(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr
