"""A browser, and a server whose models say what tests want. Run by `make test-page`; `make test` needs none of it.

Whatever a browser complains of on its console, errors and breaches of the page's policy too, fails the test.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from tests.server.conftest import THINKS, TOOLS, called
from tests.support.scripted import scripted
from tests.support.serving import served

from sotol.server import Served, create_app

PICTURES = Path(__file__).parents[2] / "build" / "page"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "has_touch": True,
        "is_mobile": True,
        "device_scale_factor": 2,
    },
}
RICH = (Path(__file__).parent / "rich.md").read_text()
HOSTILE = (Path(__file__).parent / "hostile.md").read_text()


def said(prompt: str) -> str:
    """What the model `talks` answers: by the last message of its prompt."""
    asked = prompt.rsplit("<|user|>", 1)[-1].split("<|end|>")[0]
    answers = {"rich": RICH, "hostile": HOSTILE, "long": "A line of a long answer.\n\n" * 400, "json": '{"a": [1, 2]}'}
    return answers.get(asked, f"You said: **{asked}**")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert found is not None, "these tests need chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def llms() -> Iterator[dict[str, Any]]:
    made = {
        "talks": scripted(said, context=32_000),
        "thinks": scripted("<think>\nHm, two…\n</think>\n\nTwo.", template=THINKS),
        "tools": scripted(called, template=TOOLS),
    }
    yield made
    for llm in made.values():
        llm.close()


@pytest.fixture
def url(llms: dict[str, Any], tmp_path: Path) -> Iterator[str]:
    """A server of the test's own, without conversations yet."""
    app = create_app([Served(name, llm) for name, llm in llms.items()], conversations=tmp_path / "c.db")
    with served(app) as address:
        yield address


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(params=list(SIZES))
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_page(browser: Browser, url: str, size: str) -> Iterator[Callable[..., Page]]:
    """open_page(path="/ui/", …): a page of a size; its complaints are collected, and there must be none."""
    complaints: list[str] = []
    contexts = []

    def start(path: str = "/ui/", *, allowed: str = "", **options: Any) -> Page:
        context = browser.new_context(**SIZES[size], **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)

        def complain(text: str) -> None:
            if not allowed or allowed not in text:
                complaints.append(text)

        page.on("console", lambda message: complain(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complain(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith((url, "blob:", "data:")) else complain(asked.url))
        page.goto(url + path)
        page.wait_for_selector("body[data-ready]")
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def picture(size: str) -> Callable[[Page, str], None]:
    """picture(page, name): a screenshot, kept in build/page to be looked at."""

    def take(page: Page, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"{name}-{size}.png")

    return take


def ask(page: Page, text: str) -> None:
    """Send a message, and wait until its answer is complete."""
    before = page.locator(".message.assistant").count()
    page.fill("#composer-text", text)
    page.click("#send")
    page.locator(".message.assistant").nth(before).wait_for()
    finished(page)


def finished(page: Page) -> None:
    """Wait until no answer is coming."""
    page.wait_for_selector("#send:not([data-busy=yes])")
    page.wait_for_selector(".message[aria-busy]", state="detached")


def stored(http: httpx.Client) -> list[dict[str, Any]]:
    """All conversations with their messages, the latest first."""
    listed = http.get("/ui/api/conversations").json()["conversations"]
    return [json.loads(http.get(f"/ui/api/conversations/{one['id']}").text) for one in listed]
