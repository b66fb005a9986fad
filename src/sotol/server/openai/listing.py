"""/v1/models: https://platform.openai.com/docs/api-reference/models; in Anthropic's shape for its clients."""

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sotol.server.answering import answer
from sotol.server.models import Model
from sotol.server.service import Service

__all__ = ["every", "one"]


async def every(service: Service, http: Request) -> Response:
    """All models, loaded or not. A client that names a version of Anthropic's API gets its shape."""
    entry = _entry_of(http)
    listed = [entry(model) for model in service.models]
    if entry is _openai:
        return answer({"object": "list", "data": listed})
    ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]} if listed else {"first_id": None, "last_id": None}
    return answer({"data": listed, "has_more": False, **ends})


async def one(service: Service, http: Request) -> Response:
    """A model by name or alias, which this does not load."""
    return answer(_entry_of(http)(service.models.find(http.path_params["model"])))


def _entry_of(http: Request) -> Any:
    return _anthropic if "anthropic-version" in http.headers else _openai


def _openai(model: Model) -> dict[str, Any]:
    head = {"id": model.name, "object": "model", "created": model.created, "owned_by": "sotol"}
    state = {"status": model.status, "memory": model.memory, "idle": model.idle, "expires": model.expires}
    entry = {**head, "aliases": list(model.aliases), **state}
    if model.error is not None:
        entry["error"] = model.error
    if model.served is None:
        return entry
    llm = model.served.llm
    about = {"n_ctx": llm.context, "n_vocab": llm.vocabulary}  # llama-server's; max_model_len is vLLM's
    return {**entry, "max_model_len": llm.context, "meta": about}


def _anthropic(model: Model) -> dict[str, Any]:
    created = datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z")
    head = {"type": "model", "id": model.name, "display_name": model.name, "created_at": created}
    context = None if model.served is None else model.served.llm.context  # unknown before it is loaded
    return {**head, "max_input_tokens": context, "max_tokens": context, "lifecycle": "active", "deprecated_at": None}
