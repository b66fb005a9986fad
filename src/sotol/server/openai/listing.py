"""/v1/models: https://platform.openai.com/docs/api-reference/models; in Anthropic's shape for its clients."""

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sotol.server.answering import answer
from sotol.server.models import Served
from sotol.server.service import Service

__all__ = ["every", "one"]


async def every(service: Service, http: Request) -> Response:
    """All models. A client that names a version of Anthropic's API gets its shape."""
    entry = _entry_of(http)
    listed = [entry(served) for served in service.models]
    if entry is _openai:
        return answer({"object": "list", "data": listed})
    ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]} if listed else {"first_id": None, "last_id": None}
    return answer({"data": listed, "has_more": False, **ends})


async def one(service: Service, http: Request) -> Response:
    """A model by name or alias."""
    return answer(_entry_of(http)(await service.models.find(http.path_params["model"])))


def _entry_of(http: Request) -> Any:
    return _anthropic if "anthropic-version" in http.headers else _openai


def _openai(served: Served) -> dict[str, Any]:
    llm = served.llm
    about = {"n_ctx": llm.context, "n_vocab": llm.vocabulary}  # llama-server's; max_model_len is vLLM's
    head = {"id": served.name, "object": "model", "created": served.created, "owned_by": "sotol"}
    return {**head, "aliases": list(served.aliases), "max_model_len": llm.context, "meta": about}


def _anthropic(served: Served) -> dict[str, Any]:
    created = datetime.fromtimestamp(served.created, UTC).isoformat().replace("+00:00", "Z")
    head = {"type": "model", "id": served.name, "display_name": served.name, "created_at": created}
    limits = {"max_input_tokens": served.llm.context, "max_tokens": served.llm.context}
    return {**head, **limits, "lifecycle": "active", "deprecated_at": None}
