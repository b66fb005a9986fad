"""What runs the fuzzers notices each kind of broken promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.fuzzing import Broken, Link, files_in, sentence

HARMLESS = "return rng.random() < 0.5"
# What a fuzzer's cases do, and what the run says of case 3, which is the one that does it.
WRONG = {
    "raise KeyError('x')": "KeyError: 'x'",
    "raise Broken('a promise')": "Broken: a promise",
    "os.abort()": "exit -6",
    "open('/etc/hosts').close()": "Broken: opened '/etc/hosts', outside of its folder",
    "(folder / 'a').symlink_to('/etc/hosts'); open(folder / 'a').close()": "Broken: opened '/etc/hosts'",
    "bytes(1 << 28)": "MemoryError",
    "bytes(1 << 21)": "Broken: allocated 2",
    "[i for i in range(10**8) if i < 0]": "Broken: took ",
    "logging.getLogger('sotol').warning('a\\nb')": "Broken: a remark of several lines",
}
PROGRAM = """
import logging, os
from tests.support.fuzzing import Bounds, Broken, run

def case(rng, folder):
    if rng.getstate() == __import__("random").Random("0/3").getstate():
        {wrong}
    {harmless}

if __name__ == "__main__":
    raise SystemExit(run("fuzz_wrong", case, bounds=Bounds(0.5, 1 << 27, {allocated})))
"""


def fuzz(folder: Path, wrong: str, *options: str) -> str:
    """The output of a fuzzer of which case 3 does something wrong."""
    allocated = 1 << 20 if "1 << 21" in wrong else None
    text = PROGRAM.format(wrong=wrong, harmless=HARMLESS, allocated=allocated)
    (folder / "fuzz_wrong.py").write_text(text)
    command = [sys.executable, "-m", "fuzz_wrong", *options]
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{folder}:{root}:{root / 'src'}", "PATH": "", "TMPDIR": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment).stdout


@pytest.mark.parametrize(("wrong", "said"), WRONG.items())
def test_a_broken_promise_is_named_and_the_cases_go_on(tmp_path: Path, wrong: str, said: str) -> None:
    lines = fuzz(tmp_path, wrong, "--cases", "9").splitlines()
    assert lines[0].startswith("--seed 0 --case 3, kept in ")
    assert said in lines[0]
    assert re.fullmatch(r"fuzz_wrong: 9 cases, \d accepted, 1 broken promises, \d+ cases a second", lines[1])


def test_cases_are_the_same_in_any_run(tmp_path: Path) -> None:
    whole, tail = fuzz(tmp_path, "pass", "--cases", "40"), fuzz(tmp_path, "pass", "--first", "20", "--cases", "20")
    head = fuzz(tmp_path, "pass", "--cases", "20")
    accepted = [int(str(re.search(r"(\d+) accepted", text)[1])) for text in (whole, head, tail)]  # type: ignore[index]
    assert accepted[0] == accepted[1] + accepted[2] > 0


@pytest.mark.parametrize("text", ["", "a\nb", "x" * 2000, "m.gguf: out of memory", "another.gguf is wrong"])
def test_an_error_that_is_no_sentence_about_the_file_is_broken(text: str) -> None:
    with pytest.raises(Broken):
        sentence(ValueError(text), "m.gguf")
    assert sentence(ValueError("m.gguf: is cut short"), "m.gguf") is False


def test_a_folder_has_the_files_of_its_last_case(tmp_path: Path) -> None:
    files, data = files_in(tmp_path / "model"), b"1"
    files.put({"a": data, "b": b"2", "c": Link("a")})
    files.put({"a": data, "c": b"3"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == {"a": b"1", "c": b"3"}
    assert not (tmp_path / "model" / "c").is_symlink()
