"""What a reader of the page feels, in numbers. Not a test: `python -m tests.page.measure`, on a quiet machine.

- how long the page takes with 200 conversations of 100 messages, from the address to the last message
- the longest tasks of the browser's main thread (https://www.w3.org/TR/longtasks/: 50 ms is long) while an answer of
  10,000 tokens streams, and while harmful ones are shown; in time of the thread itself, so that other work of the
  machine is not in it
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, sync_playwright
from tests.page.conftest import FLAGS, RICH, SIZES
from tests.support.scripted import scripted
from tests.support.serving import served

from sotol.conversations import Conversations, NewMessage
from sotol.server import Served, create_app

CATEGORIES = ["toplevel", "__metadata"]
LONG_MS = 50
BIG = {
    "a line of 1 MB": "x" * 1_000_000,
    "marks": "`*_[<$" * 100_000,
    "maths": ("$" + "\\frac{" * 120 + "1" + "}{2}" * 120 + "$\n\n") * 20,
    "code": "```python\n" + "f(x) = (1)\n" * 30_000 + "```",
    "lines": "word\n" * 60_000,
}


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def fill(path: Path) -> str:
    """200 conversations of 100 messages; the id of the last."""
    db = Conversations(path)
    texts = [NewMessage(("user", "assistant")[i % 2], RICH if i % 2 else f"Question {i}") for i in range(100)]
    for number in range(200):
        made = db.begin("", f"Conversation {number}", "talks")
        db.add("", made.id, None, texts)
    db.close()
    return made.id


@contextmanager
def tasks(browser: Browser, page: Page, name: str) -> Iterator[None]:
    """Says which tasks of the block were long."""
    browser.start_tracing(page=page, categories=CATEGORIES)
    yield
    events = json.loads(browser.stop_tracing())["traceEvents"]
    main = {(e["pid"], e["tid"]) for e in events
            if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"}  # fmt: skip
    spent = [e.get("tdur", 0) / 1000 for e in events if e["name"].endswith("RunTask") and (e["pid"], e["tid"]) in main]
    longest = sorted((round(ms) for ms in spent if ms >= LONG_MS), reverse=True)
    say(f"{name}: {sum(spent):.0f} ms in {len(spent)} tasks; long ones, in ms: {longest or 'none'}")


def opening(browser: Browser, page: Page, url: str, id_: str) -> None:
    for name in ("cold", "warm", "warm"):
        page.goto("about:blank")
        with tasks(browser, page, f"opened, {name}"):
            page.goto(f"{url}/ui/#/c/{id_}", wait_until="commit")
            page.wait_for_selector(".message:last-child .katex")
            milliseconds = page.evaluate("Math.round(performance.now())")
            page.wait_for_timeout(1000)
        say(f"    {milliseconds} ms to the last message with its formulas")


def main() -> None:
    """Measure, and say so."""
    # The scripted model's tokens are bytes: 40,000 of them are about the text of 10,000 tokens.
    answers = {"stream": (RICH * 60)[:40_000], **BIG}
    with (
        tempfile.TemporaryDirectory() as folder,
        scripted(lambda prompt: answers[prompt.rsplit("<|user|>", 1)[-1].split("<|end|>")[0]], context=99_000) as llm,
        sync_playwright() as playwright,
    ):
        path = Path(folder) / "c.db"
        id_ = fill(path)
        browser = playwright.chromium.launch(executable_path=sys.argv[1], args=FLAGS)
        with served(create_app([Served("talks", llm)], conversations=path)) as url, httpx.Client(base_url=url) as http:
            page = browser.new_context(**SIZES["desktop"]).new_page()
            opening(browser, page, url, id_)
            page.goto(f"{url}/ui/")
            page.wait_for_selector("body[data-ready]")
            page.fill("#composer-text", "stream")
            with tasks(browser, page, f"streamed {len(answers['stream'])} characters"):
                page.click("#send")
                page.wait_for_selector(".message[aria-busy]")
                page.wait_for_selector(".message[aria-busy]", state="detached", timeout=600_000)
            for name, text in BIG.items():
                page.goto(f"{url}/ui/")
                page.wait_for_selector("body[data-ready]")
                id_ = brought(http, text)
                with tasks(browser, page, f"shown, {name}"):
                    page.goto(f"{url}/ui/#/c/{id_}")
                    page.wait_for_selector(".message.assistant .flow > *")
                    page.wait_for_timeout(4000)
        browser.close()


def brought(http: httpx.Client, text: str) -> str:
    """The id of a conversation with this answer."""
    message = {"reasoning": "", "details": {}, "status": "complete", "created": 1}
    messages = [{**message, "role": "user", "content": "?", "parent": None},
                {**message, "role": "assistant", "content": text, "parent": 0}]  # fmt: skip
    about = {
        "title": "T",
        "model": "talks",
        "settings": {},
        "created": 1,
        "changed": 1,
        "leaf": 1,
        "messages": messages,
    }
    file = {"format": "sotol-conversations", "version": 1, "conversations": [about]}
    return str(http.post("/ui/api/import", json=file).json()["conversations"][0]["id"])


if __name__ == "__main__":
    main()
