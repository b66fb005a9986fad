"""The clients of docs/server.md, against `sotol serve smollm2`: each block runs as it stands, but for the port.

`openai`, `anthropic` and `ollama` are in the test environment; the others in one of their own (`make clients`), whose
folder is SOTOL_CLIENTS.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/server.md").read_text(encoding="utf-8")
CLIENTS = PAGE[PAGE.index("\n## Clients") :]
SECTIONS = dict(re.findall(r"^### `?(.+?)`?\n(.*?)(?=^### |\Z)", CLIENTS, re.MULTILINE | re.DOTALL))
HERE = ("openai", "anthropic", "ollama", "Without a package")
FOLDER = os.environ.get("SOTOL_CLIENTS")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where a server listens."""
    command = [sys.executable, "-m", "sotol", "serve", "smollm2", "--port", "0", "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def blocks(client: str, language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[client], re.MULTILINE | re.DOTALL)
    return found


def python(client: str) -> str:
    if FOLDER is None and client not in HERE:
        pytest.skip("`make clients` has this one")
    return sys.executable if FOLDER is None else f"{FOLDER}/venv/bin/python"


def run(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_client_has_its_section() -> None:
    assert {
        *HERE,
        "litellm",
        "langchain-openai",
        "instructor",
        "pydantic-ai",
        "openai-agents",
        "llm",
    } <= SECTIONS.keys()


@pytest.mark.parametrize(
    ("client", "block"), [(name, i) for name in SECTIONS for i in range(len(blocks(name, "python")))]
)
def test_python_clients(client: str, block: int, address: str, tmp_path: Path) -> None:
    program = blocks(client, "python")[block].replace("http://127.0.0.1:8080", address)
    assert address in program
    assert run([python(client), "-c", program], tmp_path).strip()


def test_llm(address: str, tmp_path: Path) -> None:
    interpreter = python("llm")
    (models,) = blocks("llm", "yaml")
    (tmp_path / "extra-openai-models.yaml").write_text(models.replace("http://127.0.0.1:8080", address))
    (command,) = blocks("llm", "sh")
    path = f"{Path(interpreter).parent}:{os.environ['PATH']}"
    said = run(["sh", "-c", command], tmp_path, LLM_USER_PATH=str(tmp_path), OPENAI_API_KEY="none", PATH=path)
    assert said.strip()


def test_the_openapi_document(address: str, tmp_path: Path) -> None:
    """No answer to made-up requests is a server's error, or of a shape that the document does not tell."""
    tool = str(Path(python("schemathesis")).parent / "schemathesis")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    few = ["--phases", "fuzzing", "--max-examples", "3", "--seed", "1"]  # its other phases take many minutes
    run([tool, "run", f"{address}/openapi.json", "--checks", checks, *few], tmp_path)
