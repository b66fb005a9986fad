"""The Python in the documentation runs, page by page, each page's blocks in order."""

import re
import subprocess
import sys
from ast import literal_eval
from dataclasses import fields
from pathlib import Path

import pytest

from sotol import LoadOptions, Sampling
from sotol.backends.cpu.panels import block_size
from sotol.quant import ENCODINGS

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


def test_the_table_of_encodings_is_true() -> None:
    """Bits in files and in memory, of all that can be decoded; those of one row in the same order."""
    page = (ROOT / "docs/encodings.md").read_text(encoding="utf-8")
    first, second = page.split("## In memory")
    files = {name: 8 * e.size / e.values for name, e in ENCODINGS.items() if e.decode is not None}
    memory = {name: 8 * block_size(e) / 16 / e.values for name, e in ENCODINGS.items() if e.integer}
    shown, larger = dict[str, float](), dict[str, float]()
    for names, bits in re.findall(r"^\| ([A-Z][\w, ]+) \| ([\d., ]+|64, 8 to 64) \|", first, re.MULTILINE):
        listed = names.split(", ")
        numbers = [64, 8, 16, 32, 64] if "to" in bits else [float(b) for b in bits.split(", ")]
        shown |= dict(zip(listed, numbers if len(numbers) > 1 else numbers * len(listed), strict=True))
    for names, before, after in re.findall(r"^\| ([A-Z][\w, ]+) \| ([\d., ]+) \| ([\d.]+) \|$", second, re.MULTILINE):
        for name, bits in zip(names.split(", "), before.split(", "), strict=True):
            assert float(bits) == shown[name]
            larger[name] = float(after)
    assert shown == {name: pytest.approx(bits, abs=0.006) for name, bits in files.items()}
    assert larger == {
        name: pytest.approx(bits, abs=0.006) for name, bits in memory.items() if bits > 1.07 * files[name]
    }
