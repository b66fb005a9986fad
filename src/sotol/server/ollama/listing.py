"""/api/tags, /api/show, /api/ps and /api/version: what models there are."""

import hashlib
import time
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

import sotol
from sotol.llm import LLM
from sotol.server.answering import answer
from sotol.server.models import Model
from sotol.server.ollama.fields import ShowRequest
from sotol.server.problems import Problem
from sotol.server.service import Service

__all__ = ["running", "show", "tags", "version"]

VERSION = "0.12.0"  # of Ollama's API that this follows: plug-ins ask for a least one
FOREVER = "2318-01-01T00:00:00Z"  # what Ollama says of models with keep_alive -1
# What is known of a model's file before it is loaded.
UNKNOWN = {"parent_model": "", "format": "gguf", "family": "", "families": [], "parameter_size": "",
           "quantization_level": "unknown"}  # fmt: skip
# general.file_type of GGUF -> the name of the encoding (llama.cpp's enum llama_ftype)
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip


async def tags(service: Service, http: HttpRequest) -> Response:
    """All models, loaded or not."""
    del http
    return answer({"models": [_entry(model) for model in service.models]})


async def running(service: Service, http: HttpRequest) -> Response:
    """The models that are loaded, and until when; and, beside what Ollama tells, those that are being loaded."""
    del http
    listed = []
    for model in service.models:
        if model.status not in ("ready", "loading"):
            continue
        entry = _entry(model)
        del entry["modified_at"]
        ends = FOREVER if model.expires is None else _time(time.time() + model.expires)
        context = {} if model.served is None else {"context_length": model.served.llm.context}
        entry = {**entry, "size": model.memory or entry["size"], "size_vram": 0, "expires_at": ends}
        listed.append({**entry, **context, "status": model.status})
    return answer({"models": listed})


async def show(service: Service, http: HttpRequest) -> Response:
    """What a model is: its template, its metadata without the vocabulary, what it can do."""
    request = await service.read(http, ShowRequest, "ollama")
    name = request.model or request.name
    if not name:
        raise Problem(400, "model is required", param="model")
    served = await service.find(http, name)
    llm, sampling = served.llm, served.defaults
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
            "modified_at": _time(served.created),
        }
    )


async def version(service: Service, http: HttpRequest) -> Response:
    """Of the API, and of sotol behind it."""
    del service, http
    return answer({"version": f"{VERSION}+sotol.{sotol.__version__}"})


def _entry(model: Model) -> dict[str, Any]:
    name = model.name if ":" in model.name else f"{model.name}:latest"
    size, served = _size(model.path), model.served
    known = "" if model.path is None else model.path.name
    digest = hashlib.sha256(f"{known} {size} {'' if served is None else served.fingerprint}".encode()).hexdigest()
    head = {"name": name, "model": name, "modified_at": _time(model.created), "size": size}
    return {**head, "digest": digest, "details": UNKNOWN if served is None else _details(served.llm)}


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


def _size(path: Path | None) -> int:
    """Bytes of a model's file, or of the weights in its folder."""
    try:
        if path is None:
            return 0
        files = path.glob("*.safetensors") if path.is_dir() else (path,)
        return sum(file.stat().st_size for file in files)
    except OSError:  # moved, or never there
        return 0


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
