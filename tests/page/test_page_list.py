"""The list of conversations, files, keys of the keyboard and of the server, at both widths."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, expect
from tests.page.conftest import SIZES, ask, finished, stored
from tests.support.serving import served

from sotol.server import Models, Served, create_app
from sotol.server.around import Around
from sotol.server.guard import protected
from sotol.server.metrics import Metrics
from sotol.server.settings import Settings

Open = Callable[..., Page]
Picture = Callable[[Page, str], None]


def drawer(page: Page, size: str) -> None:
    """Show the list, which is a drawer on a phone."""
    if size == "phone" and page.locator("#app[data-open]").count() == 0:
        page.click("#open-sidebar")


def fill(http: httpx.Client, *titles: str) -> None:
    """Conversations with these titles."""
    message: dict[str, Any] = {"parent": None, "role": "user", "reasoning": "", "details": {}, "status": "complete",
                               "created": 1}  # fmt: skip
    about = {"model": "talks", "settings": {}, "created": 1, "leaf": 0}
    made = [{**about, "title": title, "changed": number + 1, "messages": [{**message, "content": f"About {title}"}]}
            for number, title in enumerate(titles)]  # fmt: skip
    file = {"format": "sotol-conversations", "version": 1, "conversations": made}
    assert http.post("/ui/api/import", json=file).status_code == 201


def test_a_list_that_is_long(open_page: Open, http: httpx.Client, size: str, picture: Picture) -> None:
    fill(http, *(f"Number {number}" for number in range(120)))
    page = open_page()
    drawer(page, size)
    links = page.locator("#list a")
    expect(links.first).to_have_text("Number 119")
    picture(page, "list")
    for _ in range(4):
        links.last.scroll_into_view_if_needed()
        page.wait_for_timeout(150)
    expect(links).to_have_count(120)


def test_searching(open_page: Open, http: httpx.Client, size: str, picture: Picture) -> None:
    fill(http, "Rivers", "Mountains", "Lakes")
    page = open_page()
    drawer(page, size)
    page.fill("#search", "ount")
    expect(page.locator("#list a .name")).to_have_text(["Mountains"])
    expect(page.locator("#list mark").first).to_have_text("ount")
    picture(page, "search")
    page.fill("#search", "nothing at all")
    expect(page.locator("#list")).to_contain_text("Nothing has all of these words.")
    page.fill("#search", "")
    expect(page.locator("#list a")).to_have_count(3)
    page.locator("#list a", has_text="Rivers").click()
    expect(page.locator(".message.user .body")).to_have_text("About Rivers")


def test_renaming_and_deleting(open_page: Open, http: httpx.Client, size: str, picture: Picture) -> None:
    page = open_page()
    ask(page, "Hi")
    page.click("#title")
    page.get_by_role("dialog").get_by_label("Name").fill("Another name")
    page.get_by_role("button", name="Rename", exact=True).click()
    expect(page.locator("#title-text")).to_have_text("Another name")
    drawer(page, size)
    expect(page.locator("#list a .name")).to_have_text(["Another name"])
    page.get_by_role("button", name="More for Another name").click()
    picture(page, "menu")
    page.get_by_role("menuitem", name="Delete").click()
    page.get_by_role("button", name="Cancel").click()
    assert len(stored(http)) == 1
    page.get_by_role("button", name="More for Another name").click()
    page.get_by_role("menuitem", name="Delete").click()
    picture(page, "delete")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#list")).to_contain_text("Your conversations will be here.")
    expect(page.get_by_role("heading", name="What would you like to know?")).to_be_attached()
    assert stored(http) == []


def test_files(open_page: Open, http: httpx.Client, size: str, tmp_path: Path) -> None:
    page = open_page(allowed="400 (Bad Request)")
    ask(page, "Hi")
    page.click("#export-one")
    with page.expect_download() as waiting:
        page.get_by_role("menuitem", name="Markdown, to read").click()
    assert waiting.value.suggested_filename == "Hi.md"
    assert waiting.value.path().read_text() == "# Hi\n\n## You\n\nHi\n\n## Answer (talks)\n\nYou said: **Hi**\n"
    drawer(page, size)
    with page.expect_download() as waiting:
        page.click("#export")
    file = tmp_path / "all.json"
    waiting.value.save_as(file)
    (before,) = stored(http)
    page.set_input_files("#import-file", file)
    expect(page.locator("#list a")).to_have_count(2)
    kept = stored(http)
    assert len({one["id"] for one in kept}) == 2
    assert [[message["content"] for message in one["messages"]] for one in kept] == [["Hi", "You said: **Hi**"]] * 2
    assert before["id"] in {one["id"] for one in kept}
    file.write_text(json.dumps({"format": "x"}))
    complaints = page.locator(".toast")
    drawer(page, size)
    with page.expect_response("**/import"):
        page.set_input_files("#import-file", file)
    expect(complaints.last).to_contain_text("must be an export")


def test_keys_of_the_keyboard(open_page: Open, picture: Picture) -> None:
    page = open_page()
    ask(page, "One")
    page.keyboard.press("Escape")
    page.locator("#scroller").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    picture(page, "shortcuts")
    page.keyboard.press("Escape")
    page.locator("#scroller").focus()
    page.keyboard.press("r")
    finished(page)
    expect(page.locator(".message.assistant .versions")).to_contain_text("2/2")
    page.locator("#scroller").focus()
    page.keyboard.press("e")
    expect(page.get_by_role("textbox", name="Edit message")).to_be_focused()
    page.keyboard.press("Escape")
    page.locator("#scroller").focus()
    page.keyboard.press("n")
    expect(page.get_by_role("heading", name="What would you like to know?")).to_be_visible()
    page.keyboard.press("Control+k")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#list a").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".message.user .body")).to_have_text("One")
    page.locator("#scroller").focus()
    page.keyboard.press("/")
    expect(page.locator("#composer-text")).to_be_focused()
    page.keyboard.type("n?")
    expect(page.locator("#composer-text")).to_have_value("n?")


def test_light_and_dark(open_page: Open, size: str, picture: Picture) -> None:
    page = open_page(color_scheme="dark")
    ask(page, "rich")
    expect(page.locator(".flow .katex")).to_have_count(2)
    page.locator(".hljs-keyword").first.wait_for()
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(colour) == "rgb(23, 24, 21)"
    picture(page, "dark")
    drawer(page, size)
    page.click("#theme")
    assert page.evaluate(colour) == "rgb(252, 251, 248)"
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.evaluate(colour) == "rgb(252, 251, 248)"


def test_the_drawer(open_page: Open, size: str) -> None:
    page = open_page()
    if size == "desktop":
        expect(page.locator("#open-sidebar")).to_be_hidden()
        return
    expect(page.locator("#sidebar")).to_be_hidden()
    page.click("#open-sidebar")
    expect(page.locator("#close-sidebar")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#sidebar")).to_be_hidden()
    expect(page.locator("#open-sidebar")).to_be_focused()
    page.click("#open-sidebar")
    page.mouse.click(SIZES["phone"]["viewport"]["width"] - 10, 400)
    expect(page.locator("#sidebar")).to_be_hidden()


def test_nothing_is_wider_than_the_page(open_page: Open) -> None:
    page = open_page()
    ask(page, "rich")
    ask(page, "x" * 500)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(
        "document.querySelector('#scroller').scrollWidth <= document.querySelector('#scroller').clientWidth"
    )


def test_a_server_with_keys(
    llms: dict[str, object], tmp_path: Path, browser: object, size: str, picture: Picture
) -> None:
    """The page asks for the key, once, and again if it was wrong."""
    settings = Settings(api_keys=("sesame",))
    models = Models([Served("talks", llms["talks"])])  # type: ignore[arg-type]
    app = create_app(models, settings, around=Around(Metrics(dict)), conversations=tmp_path / "keyed.db")
    with served(protected(app, settings, page=True)) as url:
        context = browser.new_context(**SIZES[size])  # type: ignore[attr-defined]
        page = context.new_page()
        page.goto(f"{url}/ui/")
        asked = page.get_by_role("dialog", name="This server asks for a key")
        expect(asked).to_be_visible()
        asked.get_by_label("API key").fill("wrong")
        asked.get_by_role("button", name="Go on").click()
        expect(asked).to_contain_text("The key was not accepted")
        picture(page, "key")
        asked.get_by_label("API key").fill("sesame")
        asked.get_by_label("Remember it in this browser").check()
        asked.get_by_role("button", name="Go on").click()
        page.wait_for_selector("body[data-ready]")
        ask(page, "Hi")
        expect(page.locator(".message.assistant .flow")).to_have_text("You said: Hi")
        again = context.new_page()
        again.goto(page.url)
        expect(again.locator(".message.assistant .flow")).to_have_text("You said: Hi")
        context.close()


def test_models_and_their_states(open_page: Open) -> None:
    """Those of a server that loads models when they are asked for."""
    states = {"loading": "loading", "ready": "ready", "cold": "unloaded", "broken": "failed"}
    page = open_page("/ui/#")
    listed = [{"id": name, "max_model_len": 10, "status": state} for name, state in states.items()]
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": listed}))
    page.reload()
    page.wait_for_selector("body[data-ready]")
    expect(page.locator("#model option")).to_have_text(
        ["loading (loading)", "ready", "cold (loads when asked)", "broken (failed to load)"]
    )
    for name, state in states.items():
        page.select_option("#model", name)
        expect(page.locator("#model-state")).to_have_attribute("data-state", state)
    listed[0]["status"] = "ready"
    expect(page.locator("#model option").first).to_have_text("loading", timeout=20_000)


def test_a_model_that_is_gone_gives_way(open_page: Open, http: httpx.Client) -> None:
    """A conversation of another server, or of a terminal: the model that is shown answers."""
    about = {"title": "T", "model": "/elsewhere/gone.gguf", "settings": {}, "created": 1, "changed": 1, "leaf": None}
    file = {"format": "sotol-conversations", "version": 1, "conversations": [{**about, "messages": []}]}
    id_ = http.post("/ui/api/import", json=file).json()["conversations"][0]["id"]
    page = open_page(f"/ui/#/c/{id_}")
    expect(page.locator("#model")).to_have_value("talks")
    ask(page, "Hi")
    expect(page.locator(".message.assistant .flow")).to_have_text("You said: Hi")
    assert stored(http)[0]["model"] == "talks"
