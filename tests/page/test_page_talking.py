"""Talking on the page: answers that stream, versions of them, what they are asked with, at both widths."""

import json
from collections.abc import Callable

import httpx
from playwright.sync_api import Page, expect
from tests.page.conftest import ask, finished, stored

Open = Callable[..., Page]
Picture = Callable[[Page, str], None]


def test_the_first_question(open_page: Open, http: httpx.Client, picture: Picture) -> None:
    page = open_page()
    expect(page.get_by_role("heading", name="What would you like to know?")).to_be_visible()
    picture(page, "empty")
    expect(page.locator("#send")).to_be_disabled()
    ask(page, "Why is the sky blue?")
    expect(page.locator(".message.user .body")).to_have_text("Why is the sky blue?")
    expect(page.locator(".message.assistant .flow")).to_have_text("You said: Why is the sky blue?")
    expect(page.locator(".message.assistant .flow strong")).to_have_text("Why is the sky blue?")
    expect(page.locator("#title-text")).to_have_text("Why is the sky blue?")
    expect(page.locator("#meter")).to_be_attached()
    (kept,) = stored(http)
    assert page.url.endswith(f"#/c/{kept['id']}")
    assert [message["status"] for message in kept["messages"]] == ["complete", "complete"]
    picture(page, "answer")
    page.reload()
    expect(page.locator(".message.assistant .flow")).to_have_text("You said: Why is the sky blue?")
    expect(page.locator("#composer-text")).to_have_value("")
    page.fill("#composer-text", "not sent yet")
    page.reload()
    expect(page.locator("#composer-text")).to_have_value("not sent yet")


def test_an_idea_is_a_question(open_page: Open) -> None:
    page = open_page()
    page.locator(".ideas button").first.click()
    finished(page)
    expect(page.locator(".message.assistant .flow")).to_contain_text("You said: Explain why the sky is blue")


def test_markdown(open_page: Open, picture: Picture) -> None:
    page = open_page()
    ask(page, "rich")
    flow = page.locator(".flow")
    expect(flow.locator("h3.h1")).to_have_text("A heading")
    expect(flow.locator("> ul > li")).to_have_count(3)
    expect(flow.locator("ul ul > li")).to_have_count(1)
    expect(flow.locator("> ol")).to_have_count(1)
    expect(flow.locator("tbody tr")).to_have_count(2)
    expect(flow.locator("td.right").last).to_have_text("22")
    expect(flow.locator(".code .hljs-keyword").first).to_have_text("def")
    expect(flow.locator(".maths .katex")).to_have_count(2)
    expect(flow.locator(".maths.raw")).to_have_count(0)
    expect(flow.locator("a").first).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(flow.locator("img")).to_have_count(0)
    expect(flow).to_contain_text("It costs $5 and not $6.")
    picture(page, "markdown")
    streamed = flow.inner_html()
    page.reload()
    expect(flow.locator(".maths .katex")).to_have_count(2)
    expect(flow.locator(".code .hljs-keyword").first).to_have_text("def")
    assert flow.inner_html() == streamed  # whether it came in pieces or as a whole
    box = flow.locator(".code").bounding_box()
    assert box is not None
    assert box["height"] < 300


def test_code_is_copied(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "rich")
    page.locator(".code .copy").click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("def primes(limit: int)")
    page.get_by_role("button", name="Copy answer").click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("# A heading")


def test_stopping_an_answer(open_page: Open, http: httpx.Client) -> None:
    page = open_page()
    page.fill("#composer-text", "long")
    page.click("#send")
    page.locator(".message[aria-busy] .flow p").nth(9).wait_for()
    page.get_by_role("button", name="Stop").click()
    finished(page)
    expect(page.locator(".message.assistant .note")).to_have_text("Stopped")
    (kept,) = stored(http)
    assert kept["messages"][-1]["status"] == "stopped"
    assert 200 < len(kept["messages"][-1]["content"]) < 10_000
    paragraphs = [text for text in kept["messages"][-1]["content"].split("\n\n") if text.strip()]
    expect(page.locator(".message.assistant .flow p")).to_have_count(len(paragraphs))


def test_a_page_that_is_closed_loses_nothing(open_page: Open) -> None:
    page = open_page()
    page.fill("#composer-text", "long")
    page.click("#send")
    page.locator(".message[aria-busy] .flow p").nth(9).wait_for()
    seen = page.locator(".message.assistant .flow p").first.inner_text()
    page.reload()
    expect(page.locator(".message.assistant .flow p").first).to_have_text(seen)
    expect(page.locator(".message.user .body")).to_have_text("long")


def test_versions(open_page: Open, http: httpx.Client, picture: Picture) -> None:
    """Editing a message and asking again begin branches, between which the reader goes."""
    page = open_page()
    ask(page, "One")
    ask(page, "Two")
    page.locator(".message.user").first.hover()
    page.get_by_role("button", name="Edit message").first.click()
    area = page.get_by_role("textbox", name="Edit message")
    expect(area).to_be_focused()
    expect(area).to_have_value("One")
    area.fill("Uno")
    picture(page, "edit")
    page.locator(".edit").get_by_role("button", name="Send").click()
    finished(page)
    expect(page.locator(".message")).to_have_count(2)
    expect(page.locator(".message.user .versions")).to_contain_text("2/2")
    page.get_by_role("button", name="Answer again").click()
    finished(page)
    expect(page.locator(".message.assistant .versions")).to_contain_text("2/2")
    picture(page, "versions")
    page.locator(".message.user").get_by_role("button", name="Previous version").click()
    expect(page.locator(".message")).to_have_count(4)
    expect(page.locator(".message.user .body").first).to_have_text("One")
    expect(page.locator(".message.user .versions")).to_contain_text("1/2")
    page.reload()
    expect(page.locator(".message")).to_have_count(4)
    (kept,) = stored(http)
    assert len(kept["messages"]) == 7


def test_leaving_an_edit(open_page: Open) -> None:
    page = open_page()
    ask(page, "One")
    page.locator(".message.user").hover()
    page.get_by_role("button", name="Edit message").click()
    page.keyboard.press("Escape")
    expect(page.locator(".edit")).to_have_count(0)
    expect(page.get_by_role("button", name="Edit message")).to_be_focused()


def test_reasoning_is_folded(open_page: Open, picture: Picture) -> None:
    page = open_page()
    page.select_option("#model", "thinks")
    ask(page, "How many?")
    expect(page.locator(".flow")).to_have_text("Two.")
    expect(page.locator(".reasoning .text")).to_be_hidden()
    page.locator(".reasoning summary").click()
    expect(page.locator(".reasoning .text")).to_have_text("Hm, two…")
    picture(page, "reasoning")


TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("weather", "time")
]


def test_tools(open_page: Open, picture: Picture) -> None:
    page = open_page()
    page.select_option("#model", "tools")
    page.click("#settings")
    page.get_by_text("More", exact=True).click()
    page.fill("#set-tools", "nothing")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("alert")).to_contain_text("The tools: ")
    page.fill("#set-tools", json.dumps(TOOLS))
    page.get_by_role("button", name="Apply").click()
    ask(page, "How is the weather?")
    expect(page.locator(".call")).to_have_count(2)
    expect(page.locator(".call pre").first).to_have_text('{\n  "city": "Köln",\n  "days": 2\n}')
    picture(page, "tools")
    page.get_by_label("What weather gives").fill("rain")
    page.get_by_label("What time gives").fill("noon")
    page.get_by_role("button", name="Send results").click()
    expect(page.locator(".message.assistant .flow").last).to_have_text("It is noon.")
    expect(page.locator(".message.tool")).to_have_count(2)


def test_json_and_source(open_page: Open) -> None:
    page = open_page()
    ask(page, "json")
    expect(page.locator(".flow .code pre")).to_have_text('{\n  "a": [\n    1,\n    2\n  ]\n}')
    ask(page, "Hi")
    page.get_by_role("button", name="Show the source").last.click()
    expect(page.locator(".source")).to_have_text("You said: **Hi**")
    page.get_by_role("button", name="Details").last.click()
    expect(page.get_by_role("dialog")).to_contain_text('"finish": "stop"')


def test_settings(open_page: Open, http: httpx.Client, picture: Picture) -> None:
    page = open_page()
    page.click("#settings")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_role("button", name="Precise").click()
    expect(page.locator("#set-temperature")).to_have_value("0.2")
    expect(page.get_by_role("button", name="Precise")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Keep as preset…").click()
    page.get_by_label("Name of the preset").fill("Mine")
    page.keyboard.press("Enter")
    page.get_by_label("Longest answer").fill("5")
    picture(page, "settings")
    page.get_by_role("button", name="Apply").click()
    ask(page, "Hi")
    expect(page.locator(".note")).to_contain_text("Cut off")
    (kept,) = stored(http)
    assert kept["settings"] == {"system": "Be brief.", "temperature": 0.2, "top_p": 0.9, "max_tokens": 5}
    page.reload()
    page.click("#settings")
    expect(page.get_by_label("System prompt")).to_have_value("Be brief.")
    page.get_by_role("button", name="Default").click()
    page.get_by_role("button", name="Mine", exact=True).click()
    expect(page.locator("#set-temperature")).to_have_value("0.2")
    expect(page.locator("#set-max_tokens")).to_have_value("")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_selector("dialog", state="detached")
    ask(page, "Hi")
    expect(page.locator(".message.assistant .flow").last).to_have_text("You said: Hi")


def test_another_model(open_page: Open, http: httpx.Client) -> None:
    page = open_page()
    ask(page, "Hi")
    page.select_option("#model", "thinks")
    ask(page, "And?")
    expect(page.locator(".message.assistant .about")).to_have_text(["talks", "thinks"])
    (kept,) = stored(http)
    assert kept["model"] == "thinks"
    page.reload()
    expect(page.locator("#model")).to_have_value("thinks")


def test_what_cannot_be_asked_is_said(open_page: Open, picture: Picture) -> None:
    page = open_page(allowed="Failed to load resource")
    page.route("**/answers", lambda route: route.abort())
    page.fill("#composer-text", "Hi")
    page.click("#send")
    expect(page.get_by_role("alert")).to_contain_text("The server can't be reached")
    expect(page.locator("#composer-text")).to_have_value("Hi")
    picture(page, "problem")
    page.unroute("**/answers")
    page.get_by_role("button", name="Try again").click()
    finished(page)
    expect(page.locator(".message.assistant .flow")).to_have_text("You said: Hi")
    expect(page.locator("#composer-text")).to_have_value("")
    expect(page.get_by_role("alert")).to_have_count(0)
    page.route("**/answers", lambda route: route.abort())
    page.get_by_role("button", name="Answer again").click()
    expect(page.get_by_role("alert")).to_contain_text("The server can't be reached")
    expect(page.locator(".message.assistant .flow")).to_have_text("You said: Hi")  # the answer before is there still
    page.unroute("**/answers")
    page.fill("#composer-text", "long " * 8000)
    page.click("#send")
    expect(page.get_by_role("alert")).to_contain_text("the model's context holds")


def test_lines_and_enter(open_page: Open, size: str) -> None:
    """Enter sends, and makes a line where a finger types."""
    page = open_page()
    page.locator("#composer-text").press_sequentially("one")
    page.keyboard.press("Enter" if size == "phone" else "Shift+Enter")
    page.locator("#composer-text").press_sequentially("two")
    expect(page.locator("#composer-text")).to_have_value("one\ntwo")
    if size == "desktop":
        page.keyboard.press("Enter")
        finished(page)
        expect(page.locator(".message.user .body")).to_have_text("one\ntwo")
