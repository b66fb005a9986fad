"""The server described by itself: an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0) of its routes."""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

import sotol
from sotol.server.answering import EVENTS, LINES
from sotol.server.problems import Dialect, Problem, problem_body
from sotol.server.service import Service

__all__ = ["Path", "document"]

REFERENCE = "#/components/schemas/"
STREAMS: dict[Dialect, str] = {"openai": EVENTS, "anthropic": EVENTS, "ollama": LINES}
# How Pydantic tells records of one name apart; here they are called by their dialect, too.
MODULE = re.compile(r"sotol__server__([a-z]+)__[a-z]+__")


class Path(NamedTuple):
    """A path of the server: what answers, in which dialect, and the body that it takes."""

    path: str
    method: str
    handler: Callable[[Service, Request], Awaitable[Response]]
    dialect: Dialect
    body: type[BaseModel] | None = None


def document(paths: Sequence[Path]) -> dict[str, Any]:
    """The document. Answers are objects in the shapes of the services whose dialects these are."""
    bodies = [path.body for path in paths if path.body is not None]
    names, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=REFERENCE + "{model}")
    described: dict[str, dict[str, Any]] = {}
    for path in paths:
        plain = re.sub(r":\w+}", "}", path.path)
        body = None if path.body is None else names[path.body, "validation"]
        described.setdefault(plain, {})[path.method.lower()] = _operation(path, plain, body)
    errors = {f"Error of {dialect}": _error(dialect) for dialect in STREAMS}
    result = {
        "openapi": "3.1.0",
        "info": {"title": "Sotol", "version": sotol.__version__, "license": {"name": "Apache-2.0"}},
        "paths": described,
        "components": {
            "schemas": {**schemas.get("$defs", {}), **{_key(name): schema for name, schema in errors.items()}},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }
    named: dict[str, Any] = json.loads(MODULE.sub(lambda found: found[1].title(), json.dumps(result)))
    return named


def _operation(path: Path, plain: str, body: Any) -> dict[str, Any]:
    """One method of a path."""
    first, *more = (path.handler.__doc__ or "").strip().split("\n\n")
    error = {"schema": {"$ref": REFERENCE + _key(f"Error of {path.dialect}")}}
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if path.body is not None and "stream" in path.body.model_fields:
        content[STREAMS[path.dialect]] = {}
    names = re.findall(r"{(\w+)}", plain)
    operation: dict[str, Any] = {
        "operationId": path.method.lower() + re.sub(r"\W+", "_", plain).rstrip("_"),
        "summary": " ".join(first.split()),
        "description": " ".join(" ".join(more).split()),
        "tags": [path.dialect],
        "parameters": [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names],
        "responses": {
            "200": {"description": "the answer", "content": content},
            "default": {"description": "an error", "content": {"application/json": error}},
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _error(dialect: Dialect) -> dict[str, Any]:
    """The schema of a dialect's errors, by an example."""
    return _like(problem_body(dialect, Problem(400, "a message")))


def _like(example: Any) -> dict[str, Any]:
    if isinstance(example, dict):
        return {
            "type": "object",
            "properties": {key: _like(value) for key, value in example.items()},
            "required": list(example),
        }
    return {"type": "string" if isinstance(example, str) else ["string", "null"]}


def _key(name: str) -> str:
    return name.title().replace(" ", "")
