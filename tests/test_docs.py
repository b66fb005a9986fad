"""The Python in the documentation runs, page by page, each page's blocks in order."""

import re
import subprocess
import sys
from ast import literal_eval
from dataclasses import fields
from pathlib import Path

import pytest

from sotol import LoadOptions, Sampling

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/python.md", "docs/dialects.md"])
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    program = "\n".join(blocks)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("options", [Sampling(), LoadOptions()])
def test_the_tables_of_options_are_true(options: Sampling | LoadOptions) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.MULTILINE)
    shown = {name: literal_eval(default) for name, default in rows if name in {f.name for f in fields(options)}}
    assert shown == {f.name: getattr(options, f.name) for f in fields(options)}
