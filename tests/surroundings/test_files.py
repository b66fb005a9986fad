"""A model's file while it is loaded and after: changes, and what never was one."""

import os
from pathlib import Path

import pytest
from tests.support.child import said
from tests.support.tiny_model import tiny_model

AFTER = """
import shutil
from pathlib import Path
from sotol import LLM
path = sys.argv[1]

def overwrite(name):
    with open(name, "r+b") as file:
        file.write(os.urandom(os.path.getsize(name)))

def replace(name):
    Path(name + ".new").write_bytes(b"another")
    os.replace(name + ".new", name)

changes = [overwrite, lambda name: os.truncate(name, 0), replace, os.unlink]
for number, change in enumerate(changes):
    name = shutil.copy(path, f"{path}-{number}.gguf")
    llm = LLM(name, threads=2, precision="f32")
    before = llm.logits([[5, 6, 7]])[0]
    _, maps, files = left(name)
    change(name)
    after = llm.logits([[5, 6, 7]])[0]
    chat = llm.chat([{"role": "user", "content": "hi"}], max_tokens=3).text
    say([bool((before == after).all()), maps, files, type(chat).__name__, llm.metadata["general.architecture"]])
    llm.close()
"""

WHILE = """
import sotol.formats.files as files
from sotol import LLM, SotolError
path, at = sys.argv[1], int(sys.argv[2])
read, seen = files.ModelFile.copy_to, [0]

def cut(self, *arguments):
    seen[0] += 1
    if seen[0] == at:
        os.truncate(path, 4096)
    return read(self, *arguments)

files.ModelFile.copy_to = cut
try:
    LLM(path, threads=2, progress=lambda *_: None)
except SotolError as error:
    say([type(error).__name__, str(error)])
say(left(path))
say(seen[0] >= at)
"""

SPECIAL = """
import signal
from sotol import LLM, SotolError
for path in sys.argv[1:]:
    signal.alarm(60)
    try:
        LLM(path)
    except SotolError as error:
        say(str(error))
"""


def test_after_loading_nothing_reads_the_file(tmp_path: Path) -> None:
    seen = said(AFTER, tiny_model(tmp_path))
    assert seen == [[True, [], [], "str", "llama"]] * 4


@pytest.mark.parametrize("at", [2, 4, 9, 12])
def test_a_file_cut_short_while_it_is_loaded_is_an_error(tmp_path: Path, at: int) -> None:
    """Before its head, a vector or a matrix is read; the map would end in SIGBUS."""
    path = tiny_model(tmp_path)
    os.utime(path, (1, 1))
    error, rest, reached = said(WHILE, path, str(at))
    assert error == ["FormatError", f"{path}: was changed while it was read: load it again when it is complete"]
    assert rest == [[], [], []]
    assert reached


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe, many = tmp_path / "pipe.gguf", tmp_path / "part-00001-of-00002.gguf"
    os.mkfifo(pipe)
    os.mkfifo(many)
    assert said(SPECIAL, pipe, many, "/dev/zero", "/dev/stdin") == [
        f"{path}: is not a regular file" for path in (pipe, many, "/dev/zero", "/dev/stdin")
    ]
