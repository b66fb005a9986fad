"""/api/tags, /api/show, /api/ps and /api/version: what models there are."""

import hashlib
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

import sotol
from sotol.llm import LLM
from sotol.server.answering import answer
from sotol.server.models import Served
from sotol.server.ollama.fields import ShowRequest
from sotol.server.problems import Problem
from sotol.server.service import Service

__all__ = ["running", "show", "tags", "version"]

VERSION = "0.12.0"  # of Ollama's API that this follows: plug-ins ask for a least one
FOREVER = "2318-01-01T00:00:00Z"  # what Ollama says of models with keep_alive -1
# general.file_type of GGUF -> the name of the encoding (llama.cpp's enum llama_ftype)
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip


async def tags(service: Service, http: HttpRequest) -> Response:
    """All models."""
    del http
    return answer({"models": [_entry(served) for served in service.models]})


async def running(service: Service, http: HttpRequest) -> Response:
    """The models that are loaded: all."""
    del http
    listed = []
    for served in service.models:
        entry = _entry(served)
        del entry["modified_at"]
        listed.append({**entry, "expires_at": FOREVER, "size_vram": 0, "context_length": served.llm.context})
    return answer({"models": listed})


async def show(service: Service, http: HttpRequest) -> Response:
    """What a model is: its template, its metadata without the vocabulary, what it can do."""
    request = await service.read(http, ShowRequest, "ollama")
    name = request.model or request.name
    if not name:
        raise Problem(400, "model is required", param="model")
    served = await service.models.find(name)
    llm, sampling = served.llm, served.sampling
    template = llm.metadata.get("tokenizer.chat_template")
    source = template if isinstance(template, str) else ""
    can = {"tools": "tools" in source, "thinking": "think" in source}
    parameters = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
                  "min_p": sampling.min_p, "repeat_penalty": sampling.repeat_penalty}  # fmt: skip
    return answer(
        {
            "license": str(llm.metadata.get("general.license", "")),
            "modelfile": f"FROM {llm.path.name}\n",
            "parameters": "\n".join(f"{name:<30} {value}" for name, value in parameters.items()),
            "template": source,
            "details": _details(llm),
            "model_info": _plain(llm),
            "capabilities": ["completion", *(name for name, able in can.items() if able)],
            "modified_at": _time(served),
        }
    )


async def version(service: Service, http: HttpRequest) -> Response:
    """Of the API, and of sotol behind it."""
    del service, http
    return answer({"version": f"{VERSION}+sotol.{sotol.__version__}"})


def _entry(served: Served) -> dict[str, Any]:
    llm = served.llm
    name = served.name if ":" in served.name else f"{served.name}:latest"
    size = _size(llm)
    digest = hashlib.sha256(f"{llm.path.name} {size} {served.fingerprint}".encode()).hexdigest()
    head = {"name": name, "model": name, "modified_at": _time(served), "size": size}
    return {**head, "digest": digest, "details": _details(llm)}


def _details(llm: LLM) -> dict[str, Any]:
    family = str(llm.metadata.get("general.architecture", ""))
    kind = llm.metadata.get("general.file_type")
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": str(llm.metadata.get("general.size_label", "")),
        "quantization_level": FILE_TYPES.get(kind, "unknown") if isinstance(kind, int) else "unknown",
    }


def _plain(llm: LLM) -> dict[str, Any]:
    """The metadata; lists, which are vocabularies mostly, are left out, as Ollama does unless it is asked for them."""
    return {
        key: value if isinstance(value, str | bool | int) or (isinstance(value, float) and isfinite(value)) else None
        for key, value in llm.metadata.items()
        if key != "tokenizer.chat_template"
    }


def _size(llm: LLM) -> int:
    try:
        return llm.path.stat().st_size
    except OSError:  # moved, or never there
        return 0


def _time(served: Served) -> str:
    return datetime.fromtimestamp(served.created, UTC).isoformat().replace("+00:00", "Z")
