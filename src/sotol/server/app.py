"""The ASGI application: which route is answered by what."""

import asyncio
import pathlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sotol.conversations import Conversations
from sotol.llm import LLM
from sotol.server.answering import answer, handled, refusal
from sotol.server.anthropic import messages
from sotol.server.anthropic.fields import CountRequest, MessagesRequest
from sotol.server.leases import Leases
from sotol.server.llama import completion as llama
from sotol.server.models import Models, Offered, Served
from sotol.server.ollama import answers, pulling
from sotol.server.ollama import fields as ollama
from sotol.server.ollama import listing as tags
from sotol.server.openai import chat, completions, listing, tokens
from sotol.server.openapi import Path, document
from sotol.server.preparing import Preparing
from sotol.server.problems import Problem, dialect_of
from sotol.server.responses import routes as responses
from sotol.server.responses.fields import ResponseRequest
from sotol.server.service import Limits, LimitsLike, Nothing, Service, Surroundings
from sotol.server.store import Memory, Store
from sotol.server.ui.page import Page
from sotol.server.ui.routes import routes as page_routes

__all__ = ["create_app"]

ROUTES = (
    Path("/v1/chat/completions", "POST", chat.create, "openai", chat.ChatRequest),
    Path("/v1/completions", "POST", completions.create, "openai", completions.CompletionRequest),
    Path("/v1/responses", "POST", responses.create, "openai", ResponseRequest),
    Path("/v1/responses/{id}", "GET", responses.retrieve, "openai"),
    Path("/v1/responses/{id}", "DELETE", responses.delete, "openai"),
    Path("/v1/responses/{id}/input_items", "GET", responses.items, "openai"),
    Path("/v1/models", "GET", listing.every, "openai"),
    Path("/v1/models/{model:path}", "GET", listing.one, "openai"),
    Path("/v1/messages", "POST", messages.create, "anthropic", MessagesRequest),
    Path("/v1/messages/count_tokens", "POST", messages.count, "anthropic", CountRequest),
    Path("/api/chat", "POST", answers.chat, "ollama", ollama.ChatRequest),
    Path("/api/generate", "POST", answers.generate, "ollama", ollama.GenerateRequest),
    Path("/api/tags", "GET", tags.tags, "ollama"),
    Path("/api/show", "POST", tags.show, "ollama", ollama.ShowRequest),
    Path("/api/ps", "GET", tags.running, "ollama"),
    Path("/api/pull", "POST", pulling.pull, "ollama", ollama.PullRequest),
    Path("/api/version", "GET", tags.version, "ollama"),
    Path("/completion", "POST", llama.complete, "openai", llama.TextRequest),
    Path("/props", "GET", llama.props, "openai"),
    Path("/tokenize", "POST", tokens.tokenize, "openai", tokens.Tokenize),
    Path("/detokenize", "POST", tokens.detokenize, "openai", tokens.Detokenize),
    Path("/apply-template", "POST", tokens.apply_template, "openai", tokens.Template),
)


def create_app(
    models: Models | LLM | str | pathlib.Path | Sequence[Served | Offered],
    limits: LimitsLike | None = None,
    *,
    around: Surroundings | None = None,
    store: Store | None = None,
    conversations: pathlib.Path | None = None,
) -> Starlette:
    """An ASGI application that answers for models in the dialects of OpenAI, Anthropic and Ollama.

    models: those to serve, loaded or to be loaded when somebody asks; an `LLM`, which gets the name of its file; or a
    path or a name to load, now. What was loaded here the application's lifespan closes at its end: what it was given
    loaded, it leaves open, and so `Models`, which who made them closes. limits: an operator's
    (`sotol.server.settings.Settings` has them). around: guards and metrics.
    store: where responses are kept; the memory unless given.
    conversations: the database of the chat page, which is made when the page is used; without one there is no page.

    It asks nobody for a key and knows no other guard: `sotol serve` puts those around it.
    """
    owned: LLM | None = None
    if isinstance(models, str | pathlib.Path):
        owned = models = LLM(models)
    if isinstance(models, LLM):
        models = [Served(models.path.stem, models)]
    listed = models if isinstance(models, Models) else Models(models)
    chosen = limits or Limits()
    service = Service(listed, chosen, around or Nothing(), store or Memory(), Preparing(chosen.prompt_tokens))
    page = None if conversations is None else Page(service, Conversations(conversations))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        warming = asyncio.ensure_future(_warmed(service))
        yield
        warming.cancel()
        if listed is not models:
            await listed.close()
        if page is not None:
            await page.close()
        if owned is not None:
            await owned.aclose()

    routes = [
        handled(path.path, partial(path.handler, service), path.dialect, path.method, service.around.request_id)
        for path in ROUTES
    ]
    described = answer(document(ROUTES))
    routes.append(Route("/openapi.json", lambda _: described))
    if page is not None:
        routes += page_routes(page)
    return Starlette(
        routes=routes, middleware=[Middleware(Leases)], exception_handlers={HTTPException: _refused}, lifespan=lifespan
    )


async def _warmed(service: Service) -> None:
    """Prepare models for their first request: those that were given loaded. All others are when they are loaded."""
    for model in service.models.given():
        await service.prepare.run(model.warm)


async def _refused(request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself: no such path, no such method."""
    assert isinstance(error, HTTPException)
    messages: Mapping[int, str] = {404: "there is no such path", 405: "this path has no such method"}
    problem = Problem(error.status_code, messages.get(error.status_code, str(error.detail)))
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    response = refusal(dialect_of(path), problem)
    response.headers.update(error.headers or {})
    return response
