"""The paths of the page. What it asks for is below /ui/api, and needs a key where the server has any."""

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sotol.server.answering import handled
from sotol.server.ui import answers, conversations
from sotol.server.ui.files import asset, index, to_page
from sotol.server.ui.page import Page

__all__ = ["routes"]

FILES: tuple[tuple[str, Callable[[Request], Awaitable[Response]]], ...] = (
    ("/", to_page),
    ("/ui/", index),
    ("/ui/static/{digest}/{path:path}", asset),
)
API: tuple[tuple[str, str, Callable[[Page, Request], Awaitable[Response]]], ...] = (
    ("GET", "/ui/api/about", conversations.about),
    ("GET", "/ui/api/conversations", conversations.every),
    ("POST", "/ui/api/conversations", conversations.begin),
    ("GET", "/ui/api/conversations/{id}", conversations.one),
    ("PATCH", "/ui/api/conversations/{id}", conversations.change),
    ("DELETE", "/ui/api/conversations/{id}", conversations.delete),
    ("GET", "/ui/api/conversations/{id}/export", conversations.export),
    ("POST", "/ui/api/conversations/{id}/answers", answers.create),
    ("POST", "/ui/api/messages/{id:int}/stop", conversations.stop),
    ("GET", "/ui/api/export", conversations.everything),
    ("POST", "/ui/api/import", conversations.bring),
)


def routes(page: Page) -> list[Route]:
    """All routes; their errors are in OpenAI's shape."""
    request_id = page.service.around.request_id
    return [
        *(handled(path, handler, "openai", "GET", request_id) for path, handler in FILES),
        *(handled(path, partial(handler, page), "openai", method, request_id) for method, path, handler in API),
    ]
