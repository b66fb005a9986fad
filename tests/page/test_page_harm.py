"""What models say does no harm: HTML, scripts, bombs, and very much of it. And all can be used by who can't see it."""

import random
from collections.abc import Callable

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from tests.page.conftest import HOSTILE, RICH, ask

Open = Callable[..., Page]
HARM = "window.harmed ?? null"


def brought(http: httpx.Client, *contents: str) -> str:
    """The address of a conversation with these answers."""
    message = {"reasoning": "", "details": {}, "status": "complete", "created": 1}
    messages = [{**message, "role": "user", "content": "?", "parent": None}]
    messages += [{**message, "role": "assistant", "content": text, "parent": 0} for text in contents]
    about = {"title": "T", "model": "talks", "settings": {}, "created": 1, "changed": 1, "leaf": len(messages) - 1}
    file = {"format": "sotol-conversations", "version": 1, "conversations": [{**about, "messages": messages}]}
    made = http.post("/ui/api/import", json=file)
    assert made.status_code == 201
    return f"/ui/#/c/{made.json()['conversations'][0]['id']}"


def test_html_is_text(open_page: Open, picture: Callable[[Page, str], None]) -> None:
    page = open_page()
    ask(page, "hostile")
    flow = page.locator(".flow")
    for _ in range(2):
        expect(flow).to_contain_text("End.")
        expect(flow).to_contain_text("<script>window.harmed = 1</script>")
        assert page.evaluate(HARM) is None
        assert flow.locator("script, img, iframe, style, form, input, svg:not(.icon):not(.katex *)").count() == 0
        links = flow.locator("a").evaluate_all("links => links.map((link) => link.getAttribute('href'))")
        assert all(link.startswith("https://example.org/") for link in links), links
        assert page.locator("#composer-text").count() == page.locator("#app").count() == 1
        page.reload()
    picture(page, "hostile")
    assert "<script>" in HOSTILE


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x" * 1_000_000, id="a line of 1 MB"),
        pytest.param("`*_[<$" * 100_000, id="marks"),
        pytest.param("[" * 50_000 + "\n\n" + "> " * 20_000 + "\n\n" + "- " * 20_000, id="nesting"),
        pytest.param("$" + "\\frac{" * 300 + "1" + "}{2}" * 300 + "$ " + "$\\def\\a{\\a\\a}\\a$ " * 50, id="maths"),
        pytest.param("```python\n" + "(" * 300_000 + "\n```", id="code"),
        pytest.param("| a " * 200 + "|\n" + "|---" * 200 + "|\n" + ("| x " * 200 + "|\n") * 100, id="a table"),
        pytest.param("word\n" * 60_000, id="lines"),
        pytest.param("- item\n" * 5_000, id="a list"),
        pytest.param("\u202e\u0000\ufeff\U000e0001 ok" * 1000, id="odd characters"),
    ],
)
def test_very_much_of_it(text: str, open_page: Open, http: httpx.Client) -> None:
    """The page answers while it is shown, and after."""
    page = open_page(brought(http, text))
    page.wait_for_selector(".message.assistant .flow > *")
    page.fill("#composer-text", "still here")
    expect(page.locator("#send")).to_be_enabled()
    assert len(page.locator(".flow").inner_text()) > 10


INCREMENTAL = """
async ([texts, source]) => {
  const { blocks } = await import(source);
  const named = ({ kind, text, more, language, body }) => JSON.stringify([kind, text, Boolean(more), language, body]);
  const differing = [];
  for (const text of texts) {
    const whole = [...blocks(text)].map(named);
    for (let step = 1; step <= 9; step++) {
      let [at, before, seen] = [0, null, []];
      for (let end = Math.min(step, text.length); ; end = Math.min(end + step, text.length)) {
        const done = end === text.length;
        for (const block of blocks(text.slice(0, end), at, before)) {
          if (block.open && !done) break;
          seen.push(named(block));
          [at, before] = [block.to, block];
        }
        if (done) break;
      }
      if (JSON.stringify(seen) !== JSON.stringify(whole)) differing.push([text.slice(0, 40), step]);
    }
  }
  return differing;
}
"""
CUT_FENCE = """
async (source) => {
  const { Flow } = await import(source);
  const element = document.body.appendChild(document.createElement("div"));
  const flow = new Flow(element);
  const text = "A\\n\\n```python\\nx = None\\n```\\nB";
  for (let end = 1; end <= text.length; end++) flow.write(text.slice(0, end), end === text.length);
  const coloured = () => element.querySelector(".hljs-literal") !== null;
  for (let i = 0; i < 500 && !coloured(); i++) await new Promise((go) => setTimeout(go, 20));
  return [...element.querySelectorAll(".code .bar span, .hljs-literal")].map((node) => node.textContent);
}
"""
LINES = [
    "# h", "text", "- a", "  - b", "1. x", "```", "```py", "~~~", "$$", "\\[", "\\]", "x$$", "| a | b |", "|---|---|",
    "|1|2|", "---", "***", "> q", "    code", "  ", "", "", "===", "#tag", "-no", "$5", "word `c`",
]  # fmt: skip
MIXED = (
    "Text\n$$\na\n$$ x\n\n\\[ b\n\nnot closed\n- one\n\n  ```\n  code\n\n  ```\n- two\n\n| a |\n|---|\n"
    + "| 1 |\n" * 60
)
MIXED += (
    "\n~~~~ text\n~~~\n~~~~\n***\nTitle\n===\n    indented\n\n> quoted\nlazy\n1. a\n1. b\n" + "long " * 3000 + "\n```"
)


def test_blocks_are_the_same_however_they_come(open_page: Open) -> None:
    """So an answer looks the same whether it was seen coming, or is read later."""
    page = open_page()
    source = page.locator('link[href$="/blocks.js"]').evaluate("link => link.href")
    rng = random.Random(0)
    mixed = ["\n".join(rng.choices(LINES, k=rng.randint(1, 9))) for _ in range(400)]
    assert page.evaluate(INCREMENTAL, [[RICH, HOSTILE, MIXED, "", *mixed], source]) == []


def test_a_long_conversation_is_made_as_it_is_read(open_page: Open, http: httpx.Client) -> None:
    message = {"reasoning": "", "details": {}, "status": "complete", "created": 1}
    messages = [
        {**message, "role": ("user", "assistant")[i % 2], "content": f"Message {i}", "parent": i - 1 if i else None}
        for i in range(200)
    ]
    about = {"title": "T", "model": "talks", "settings": {}, "created": 1, "changed": 1, "leaf": 199}
    file = {"format": "sotol-conversations", "version": 1, "conversations": [{**about, "messages": messages}]}
    id_ = http.post("/ui/api/import", json=file).json()["conversations"][0]["id"]
    page = open_page(f"/ui/#/c/{id_}")
    expect(page.locator(".message").last).to_contain_text("Message 199")
    assert page.locator(".message").count() < 100
    for _ in range(12):
        page.locator("#scroller").evaluate("element => { element.scrollTop = 0 }")
        page.wait_for_timeout(60)
    expect(page.locator(".message")).to_have_count(200)
    expect(page.locator(".message").first).to_contain_text("Message 0")


def clean(page: Page) -> None:
    """axe finds nothing (https://github.com/dequelabs/axe-core), best practices included."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_language_that_comes_in_pieces(open_page: Open) -> None:
    """A fence that is cut says less at first; in the end code has its language, and its colours."""
    page = open_page()
    source = page.locator('link[href$="/flow.js"]').evaluate("link => link.href")
    assert page.evaluate(CUT_FENCE, source) == ["python", "None"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme: str, open_page: Open, size: str) -> None:
    page = open_page(color_scheme=scheme, reduced_motion="reduce")
    clean(page)
    ask(page, "rich")
    page.wait_for_selector(".katex")
    page.wait_for_selector(".hljs-keyword")
    ask(page, "json")
    clean(page)
    page.select_option("#model", "thinks")
    ask(page, "How many?")
    page.locator(".reasoning summary").click()
    page.locator(".message.user").first.hover()
    page.get_by_role("button", name="Edit message").first.click()
    clean(page)
    page.keyboard.press("Escape")
    for button in ("#settings", "#title"):
        page.click(button)
        clean(page)
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
    page.click("#export-one")
    clean(page)
    page.keyboard.press("Escape")
    if size == "phone":
        page.click("#open-sidebar")
        clean(page)


def test_answers_are_told_to_who_listens(open_page: Open) -> None:
    page = open_page()
    thread = page.locator("#thread")
    expect(thread).to_have_attribute("role", "log")
    expect(thread).to_have_attribute("aria-live", "polite")
    ask(page, "Hi")
    expect(page.locator("#status")).to_have_text("The answer is complete")
    expect(page.locator(".message.assistant")).not_to_have_attribute("aria-busy", "true")
    heads = page.locator("#thread h2").all_inner_texts()
    assert heads == ["You", "talks"]
