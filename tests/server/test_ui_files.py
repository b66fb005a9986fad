"""The files of the page: what a browser may do with them, that they stay what they are, and who gets them."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.asgi import asked
from tests.support.scripted import scripted

from sotol.server import create_app
from sotol.server.guard import protected
from sotol.server.settings import Settings
from sotol.server.ui.files import HEADERS

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "src" / "sotol" / "server" / "ui" / "static"
SCRIPTS = sorted(path for path in STATIC.glob("*.js"))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with scripted("Hello") as llm:
        yield create_app(llm, conversations=tmp_path_factory.mktemp("page") / "c.db")


def test_the_address_of_the_server_leads_to_the_page(app: object) -> None:
    answer = asked(app, "/")  # type: ignore[arg-type]
    assert (answer.status_code, answer.headers["location"]) == (307, "ui/")


def page(app: object) -> httpx.Response:
    return asked(app, "/ui/")  # type: ignore[arg-type]


def paths(app: object) -> list[str]:
    """All files of the page that it names."""
    return [f"/ui/{path}" for path in re.findall(r'(?:href|src)="(static/[^"]+)"', page(app).text)]


def test_the_policy_is_strict(app: object) -> None:
    for path in ["/", "/ui/", *paths(app)]:
        answer = asked(app, path)  # type: ignore[arg-type]
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        for kind in ("script-src", "style-src", "connect-src", "font-src"):
            assert policy[kind] == "'self'"
        assert policy["img-src"] == "'self' data: blob:"
        assert policy["require-trusted-types-for"] == "'script'"
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS


def test_nothing_is_inline_or_from_elsewhere(app: object) -> None:
    """The policy would break it, and a page that works offline has no use for it."""
    text = page(app).text
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|https?://", text)
    for path in [*SCRIPTS, *STATIC.glob("style/*.css")]:
        said = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", said)


def test_caching(app: object) -> None:
    first = page(app)
    assert first.headers["cache-control"] == "no-cache"
    again = asked(app, "/ui/", headers={"if-none-match": first.headers["etag"]})  # type: ignore[arg-type]
    assert (again.status_code, again.content) == (304, b"")
    for path in paths(app):
        answer = asked(app, path)  # type: ignore[arg-type]
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True)
        other = asked(app, path, headers={"accept-encoding": "identity"})  # type: ignore[arg-type]
        assert ("content-encoding" not in other.headers, other.content) == (True, answer.content)
        old = re.sub(r"static/\w+", "static/0123456789abcdef", path)
        assert asked(app, old).status_code == 404  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path", ["%2e%2e/page.py", "vendor/%2e%2e/%2e%2e/page.py", "..%2fpage.py", "style", "", "x.js"]
)
def test_only_the_pages_files(path: str, app: object) -> None:
    digest = paths(app)[0].split("/")[3]
    assert asked(app, f"/ui/static/{digest}/{path}").status_code == 404  # type: ignore[arg-type]


def test_every_module_is_asked_for_at_once(app: object) -> None:
    """And not one after the other, as they import each other."""
    named = {path.rpartition("/")[2] for path in paths(app)}
    assert {path.name for path in SCRIPTS} <= named
    assert {"markdown-it.mjs", "purify.mjs"} <= named


def test_every_module_that_is_imported_is_there() -> None:
    for script in SCRIPTS:
        for name in re.findall(r"""(?:from|import\()\s*"(\./[^"]+)\"""", script.read_text()):
            assert (script.parent / name).is_file(), f"{script.name} imports {name}"


def test_libraries_are_as_they_were_published() -> None:
    """`make page` writes them, by a lock file; whoever edits one by hand is told here."""
    known = json.loads((ROOT / "page" / "vendored.json").read_text())
    vendor = STATIC / "vendor"
    found = {path.relative_to(vendor).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
             for path in vendor.rglob("*") if path.is_file()}  # fmt: skip
    assert found == known
    said = (vendor / "LICENSES.txt").read_text()
    for name in json.loads((ROOT / "page" / "package.json").read_text())["dependencies"]:
        assert f"\n{name} " in f"\n{said}"


def test_the_page_needs_no_key_and_its_conversations_do(tmp_path: Path) -> None:
    settings = Settings(api_keys=("secret", "other"))
    with scripted("Hello") as llm:
        app = protected(create_app(llm, settings, conversations=tmp_path / "c.db"), settings, page=True)
        assert asked(app, "/").status_code == 307
        assert [asked(app, path).status_code for path in ["/ui/", *paths(app)]] == [200] * (1 + len(paths(app)))
        for path in ("/ui/api/conversations", "/ui/api/about", "/ui/static", "/ui/x", "/v1/models"):
            assert asked(app, path).status_code == 401
        assert asked(app, "/ui/api/about", headers={"x-api-key": "secret"}).status_code == 200


def test_the_pages_files_count_for_no_limit(app: object) -> None:
    limited = protected(app, Settings(requests_per_minute=2))  # type: ignore[arg-type]
    first, *others = paths(app)
    assert [asked(limited, path).status_code for path in (first, *others)] == [200] * (1 + len(others))
    assert [asked(limited, "/ui/").status_code for _ in range(3)] == [200, 200, 429]


def test_without_a_page(tmp_path: Path) -> None:
    settings = Settings(api_keys=("secret",), page=False)
    with scripted("Hello") as llm:
        app = protected(create_app(llm, settings), settings)
        for path in ("/", "/ui/", "/ui/static/0/main.js"):
            assert asked(app, path).status_code == 401
            assert asked(app, path, headers={"x-api-key": "secret"}).status_code == 404
    assert list(tmp_path.iterdir()) == []
