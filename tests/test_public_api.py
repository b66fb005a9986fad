"""What `import sotol` gives, and what it costs."""

import json
import subprocess
import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
from tests.support.tiny_model import tiny_model

import sotol

PUBLIC = ["LLM", "Completion", "FormatError", "ModelError", "Sampling", "SotolError", "TemplateError", "__version__"]
HEAVY = {"numpy", "numba", "llvmlite", "jinja2", "typer", "rich", "regex", "prompt_toolkit"}


def run(program: str, *arguments: str) -> Any:
    """What a fresh Python prints, as JSON."""
    command = [sys.executable, "-c", program, *arguments]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)


def imported(program: str, *arguments: str) -> set[str]:
    """Top-level modules and sotol's own, after a program."""
    return set(run(program + "\nimport sys, json; print(json.dumps(sorted(sys.modules)))", *arguments))


def test_names() -> None:
    assert sotol.__all__ == PUBLIC
    space: dict[str, Any] = {}
    for name in PUBLIC:
        space[name] = getattr(sotol, name)
    assert space["LLM"].__name__ == "LLM"
    with pytest.raises(AttributeError, match="module 'sotol' has no attribute 'LLMs'"):
        _ = sotol.LLMs


def test_a_star_imports_the_public_names() -> None:
    names = run("from sotol import *\nnames = sorted(globals())\nimport json; print(json.dumps(names))")
    assert [n for n in names if not n.startswith("__") or n in PUBLIC] == sorted(PUBLIC)


def test_importing_sotol_imports_little() -> None:
    modules = imported("import sotol")
    assert not modules & HEAVY
    assert [m for m in modules if m.startswith("sotol.")] == []


def test_errors_and_tokenizers_import_no_engine() -> None:
    modules = imported("from sotol import SotolError\nfrom sotol.tokenizers import Tokenizer")
    assert not [m for m in modules if m.startswith(("sotol.engine", "sotol.backends", "numba", "jinja2"))]


def test_a_warm_model_answers_without_numba(tmp_path: Path) -> None:
    """Its kernels come from the cache, and are put into memory without LLVM."""
    path = str(tiny_model(tmp_path))
    program = (
        "import sys\nfrom sotol import LLM\nwith LLM(sys.argv[1], threads=2) as llm:\n    llm.generate('hello',"
        " max_tokens=3)\n    llm.logits([[5]])"
    )
    imported(program, path)
    assert not imported(program, path) & {"numba", "llvmlite.binding", "jinja2", "typer", "rich"}


def test_types_are_marked() -> None:
    assert (files("sotol") / "py.typed").is_file()


def test_every_module_lists_names_that_it_has() -> None:
    """`__all__` and the module agree, in all that can be imported without starting something."""
    for found in walk_packages(sotol.__path__, "sotol."):
        if found.name.startswith("sotol.backends.cpu.") or found.name.endswith("__main__"):
            continue  # they import Numba, which takes seconds
        module = import_module(found.name)
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{found.name} has no {name}"


def test_records_and_classes_are_documented() -> None:
    for name in PUBLIC[:-1]:
        thing = getattr(sotol, name)
        assert thing.__doc__
        for attribute, value in vars(thing).items():
            if callable(value) and not attribute.startswith("_"):
                assert value.__doc__, f"{name}.{attribute}"
