"""What `import sotol` gives, and what it costs."""

import inspect
import json
import os
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

PUBLIC = [
    "LLM", "AsyncStream", "ChatTemplate", "Completion", "Delta", "FormatError", "LoadOptions", "ModelError",
    "ModelNotFoundError", "Options", "QueueFullError", "Sampling", "SotolError", "Stream", "TemplateError", "Terms",
    "Timings", "TokenLogprob", "Tokenizer", "ToolCall", "TopLogprob", "Turn", "Usage", "__version__",
]  # fmt: skip
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
        _ = sotol.LLMs  # type: ignore[attr-defined]
    assert set(PUBLIC) <= set(dir(sotol))


@pytest.mark.parametrize("name", ["generate", "stream", "chat", "stream_chat"])
def test_signatures_say_what_can_be_asked(name: str) -> None:
    parameters = dict(inspect.signature(getattr(sotol.LLM, name)).parameters)
    assert {"sampling", "terms", *sotol.Options.__annotations__} < set(parameters)
    assert "n" in parameters
    assert inspect.signature(getattr(sotol.LLM, f"a{name}")).parameters == parameters


def test_help_shows_the_public_names() -> None:
    command = [sys.executable, "-c", "import sotol; help(sotol)"]
    shown = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True).stdout
    for name in PUBLIC[:-1]:
        assert f"class {name}(" in shown


def test_misspelled_names_and_options_are_found_by_a_type_checker(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from sotol import LLM, Completion, Stream, Terms\n"
        "from sotol import LLMs\n"
        "llm = LLM()\n"
        "done: Completion = llm.generate('a', max_tokens=3, temperature=None)\n"
        "stream: Stream = llm.stream_chat([{'role': 'user', 'content': 'a'}], template={'enable_thinking': False})\n"
        "llm.generate('a', max_token=3)\n"
        "one: list[Completion] = llm.generate('a', n=2, sampling=None, terms=Terms(priority=1))\n"
        "all_: list[list[Completion]] = llm.generate(['a', [1, 2]], n=2, seed=1, progress=True)\n"
        "flat: list[Completion] = llm.generate([[1, 2]], progress=lambda what, done, total: None)\n"
        "chat: Completion = llm.chat([{'role': 'user', 'content': 'a'}], tools=None, top_k=3)\n"
        "chats: list[Completion] = llm.chat([{'role': 'user', 'content': 'a'}], n=1, template={'x': 1})\n"
        "async def ask() -> list[Completion]:\n"
        "    both: list[list[Completion]] = await llm.agenerate(['a'], n=3)\n"
        "    single: Completion = await llm.achat([], max_tokens=3)\n"
        "    return await llm.achat([], n=3, terms=None) + both[0] + [single]\n"
        "wrong: Completion = llm.generate('a', n=2)\n"
        "llm.stream('a', n=2).result()\n"
        "LLM('a', thread=2)\n"
        "LLM('a', threads=2, kv_memory=0.5, backend='cpu', slowdown=None)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", os.devnull, str(program)]
    said = subprocess.run(command, capture_output=True, timeout=300, text=True).stdout
    assert 'program.py:2: error: Module "sotol" has no attribute "LLMs"' in said
    assert 'program.py:6: error: Unexpected keyword argument "max_token"' in said
    assert {line.split(":")[1] for line in said.splitlines() if "error:" in line} == {"2", "6", "16", "17", "18"}


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
