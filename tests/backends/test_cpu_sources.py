"""What kernels are keyed by: all that they are made from, and no more."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import sotol
from sotol.backends.cpu.building.sources import kernel_sources, places
from sotol.errors import SotolError

PACKAGE = Path(sotol.__file__).parent
# One of each kind, as children get them.
KEYS = [
    ("activate", "relu2"), ("add",), ("add_bias",), ("add_expert_bias",), ("attend", "f16", "f16", 0, 0, 2),
    ("choose_experts", "softmax"), ("combine",), ("convolve", "silu"), ("delta_rule", 0), ("embed", "q4_32x1_m"),
    ("expert_linear", "q4_32x1_m", "int8"), ("fit", "Q4_K", 1), ("grid", "IQ3_XXS"),
    ("gate_rows",), ("glu", "silu"), ("glu_quantize", "silu"), ("head_linear", "q4_32x1_m", "int8"), ("join",),
    ("layer_norm",), ("linear", "q4_32x1_m", "int8"), ("moving_average",), ("pack", "Q4_1"), ("part",), ("quantize",),
    ("reorder",), ("reorder_choices",), ("rms_norm",),
    ("rms_norm_quantize",), ("rope", "pairs"), ("round", "Q5_1"), ("rows",), ("scale",),
    ("scale_by_position",), ("scale_choices",), ("selective_scan",), ("soft_cap",), ("sort_choices",), ("spread",),
    ("store_cache", "f16", "f16"), ("time_steps",),
]  # fmt: skip
# Loaded on the way, by packages or for what is around the compiling.
HARMLESS = {
    "__init__.py", "arrays.py", "errors.py", "backends/__init__.py", "backends/cpu/__init__.py",
    "backends/cpu/building/__init__.py", "backends/cpu/building/child.py", "backends/cpu/building/sources.py",
    "formats/__init__.py", "formats/cursor.py", "formats/files.py", "formats/gguf.py", "formats/gguf_values.py",
    "formats/gguf_writer.py", "formats/other_files.py", "formats/whole_file.py",
}  # fmt: skip
PROGRAM = """
import json, sys
from sotol.backends.cpu.building import child
from sotol.backends.cpu.kernels import KERNELS, NATIVE_FACTORIES
from sotol.backends.cpu.target import host_target
keys = json.loads(sys.argv[1])
assert {key[0] for key in keys} == {*KERNELS, *NATIVE_FACTORIES}, "a kind is missing"
for name, *parameters in keys:
    (KERNELS | NATIVE_FACTORIES)[name](host_target(), *parameters)
child.compile_kernel(("scale",), host_target())
print(json.dumps([m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] == "sotol"]))
"""


def test_kernels_are_made_from_what_they_are_keyed_by() -> None:
    """What a process loads that makes a kernel of each kind. To lack one here would run old code after an edit."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(KEYS)]
    loaded = {Path(name) for name in json.loads(subprocess.run(command, capture_output=True, check=True).stdout)}
    assert PACKAGE / "backends" / "cpu" / "vectors" / "simd.py" in loaded
    assert loaded - {*kernel_sources(), *(PACKAGE / name for name in HARMLESS)} == set()


def test_what_goes_on_around_kernels_compiles_nothing_anew() -> None:
    names = {path.name for path in kernel_sources()}
    assert not names & {"library.py", "runner.py", "store.py", "threads.py", "llm.py"}


def test_sotol_in_a_zip_file_is_one_source(tmp_path: Path) -> None:
    archive = tmp_path / "sotol.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in PACKAGE.rglob("*.py"):
            file.write(path, path.relative_to(PACKAGE.parent))
    program = (
        f"import sys; sys.path.insert(0, {str(archive)!r})\n"
        "from sotol.backends.cpu.building.sources import kernel_sources, places\n"
        "print(kernel_sources(), places()['sotol'])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert said.split() == [f"[{type(archive).__name__}({str(archive)!r})]", str(archive)]


def test_numba_is_found_along_the_path_but_not_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "there"):
        for package in ("numba", "llvmlite"):
            (tmp_path / name / package).mkdir(parents=True)
            (tmp_path / name / package / "_version.py").touch()
    monkeypatch.setattr(np, "__file__", str(tmp_path / "alone" / "numpy" / "__init__.py"))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", ["", ".", str(tmp_path / "here"), str(tmp_path / "there")])
    found = places.__wrapped__()
    assert found["numba"] == found["llvmlite"] == str(tmp_path / "there")
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "here")])
    with pytest.raises(SotolError, match="numba, which compiles kernels, is neither in"):
        places.__wrapped__()


def test_packages_are_where_this_process_has_them() -> None:
    import numba

    assert Path(numba.__file__).parents[1] == Path(places()["numba"])
    assert PACKAGE.parent == Path(places()["sotol"])
