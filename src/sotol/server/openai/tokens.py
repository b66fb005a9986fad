"""/tokenize, /detokenize and /apply-template: llama-server's shapes, with vLLM's fields beside them."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import Field, JsonValue
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from sotol.llm import LLM
from sotol.server.answering import answer
from sotol.server.openai.fields import Strict, Text
from sotol.server.openai.messages import Message, Tool, plain_messages
from sotol.server.problems import Problem, refusing
from sotol.server.service import Service

__all__ = ["Detokenize", "Template", "Tokenize", "apply_template", "detokenize", "tokenize"]

T = TypeVar("T")
Id = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Template(Strict):
    """A conversation to render."""

    model: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1)]
    tools: list[Tool] | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None


class Tokenize(Strict):
    """A text (`content` as llama-server calls it, or `prompt` as vLLM does), or a conversation."""

    model: Text | None = None
    content: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    tools: list[Tool] | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    add_generation_prompt: bool | None = None
    add_special: bool | None = None
    add_special_tokens: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None
    return_token_strs: bool | None = None


class Detokenize(Strict):
    """Ids to show as text."""

    model: Text | None = None
    tokens: list[Id]


async def tokenize(service: Service, http: HttpRequest) -> Response:
    """The ids of a text or of a conversation.

    Control tokens in a text are parsed as such, unless parse_special is false. What models put around a text is added
    to a `prompt` (vLLM's default), not to `content` (llama-server's), unless the request says so.
    """
    request = await service.read(http, Tokenize, "openai")
    served = await service.find(http, request.model)
    llm = served.llm
    given = [request.content, request.prompt, request.messages]
    if sum(value is not None for value in given) != 1:
        raise Problem(400, "give one of content, prompt and messages", param="content")
    around = request.add_special if request.add_special is not None else request.add_special_tokens
    text = request.content if request.content is not None else request.prompt

    def make() -> list[int]:
        if text is None:
            return llm.tokenizer.encode(_rendered(llm, request), special=True, add_special=False)
        service.prepare.check_text(served, len(text))
        added = request.content is None if around is None else around
        return llm.tokenizer.encode(text, special=request.parse_special is not False, add_special=added)

    ids = await _made(service, make)
    result: dict[str, Any] = {"count": len(ids), "max_model_len": llm.context, "tokens": ids}
    if request.with_pieces:
        result["tokens"] = [{"id": token, "piece": _piece(llm, token)} for token in ids]
    if request.return_token_strs:
        result["token_strs"] = [llm.tokenizer.token_text(token) for token in ids]
    return answer(result)


async def detokenize(service: Service, http: HttpRequest) -> Response:
    """The text of ids, control tokens shown."""
    request = await service.read(http, Detokenize, "openai")
    llm = (await service.find(http, request.model)).llm
    with refusing("tokens"):
        text = await service.prepare.run(lambda: llm.tokenizer.decode(request.tokens, special=True, continued=True))
    return answer({"content": text, "prompt": text})


async def apply_template(service: Service, http: HttpRequest) -> Response:
    """A conversation as the text that the model gets."""
    request = await service.read(http, Template, "openai")
    llm = (await service.find(http, request.model)).llm
    return answer({"prompt": str(await _made(service, lambda: _rendered(llm, request)))})


async def _made(service: Service, make: Callable[[], T]) -> T:
    with refusing("messages"):
        return await service.prepare.run(make)


def _rendered(llm: LLM, request: Template | Tokenize) -> str:
    tools = [tool.model_dump(exclude_none=True) for tool in request.tools or ()]
    return llm.template.render(
        plain_messages(request.messages or ()),
        tools=tools or None,
        **{"add_generation_prompt": request.add_generation_prompt is not False, **(request.chat_template_kwargs or {})},  # type: ignore[arg-type]
    )


def _piece(llm: LLM, token: int) -> str | list[int]:
    """A token's text, or its bytes where they are only part of a character."""
    data = llm.tokenizer.token_bytes(token, special=True)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
