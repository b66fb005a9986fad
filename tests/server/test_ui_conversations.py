"""What the page asks for: conversations over HTTP, and answers that are kept as they come."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.conftest import THINKS, TOOLS, called
from tests.support.asgi import asked
from tests.support.paging import answered, begun, events
from tests.support.scripted import scripted
from tests.support.serving import served, until

from sotol.conversations import Conversations
from sotol.server import Served, create_app
from sotol.server.around import Around
from sotol.server.guard import protected
from sotol.server.metrics import Metrics
from sotol.server.settings import Settings

FUNCTIONS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("weather", "time")
]
Client = Callable[..., httpx.Client]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.db"


@pytest.fixture
def paged(path: Path) -> Iterator[Client]:
    """paged(answer, …): a client of a server with one scripted model and a page."""
    with ExitStack() as stack:

        def start(answer: Any = "Hello **you**", **options: Any) -> httpx.Client:
            llm = stack.enter_context(scripted(answer, **options))
            url = stack.enter_context(served(create_app([Served("model", llm)], conversations=path)))
            return stack.enter_context(httpx.Client(base_url=url, timeout=60))

        yield start


def test_an_answer_is_streamed_and_kept(paged: Client) -> None:
    http = paged()
    id_ = begun(http)
    stream = events(http.post(f"/ui/api/conversations/{id_}/answers", json={"parent": None, "content": "Hi\nthere"}))
    assert "".join(event.get("content", "") for event in stream if event["type"] == "delta") == "Hello **you**"
    kept = http.get(f"/ui/api/conversations/{id_}").json()
    assert kept["title"] == "Hi"
    assert [(m["role"], m["content"], m["status"]) for m in kept["messages"]] == [
        ("user", "Hi\nthere", "complete"), ("assistant", "Hello **you**", "complete"),
    ]  # fmt: skip
    assert stream[-1]["message"] == kept["messages"][1]
    details = kept["messages"][1]["details"]
    assert (details["model"], details["finish"], details["context"]) == ("model", "stop", 4096)
    assert details["usage"]["prompt"] == stream[0]["prompt_tokens"]
    assert details["usage"]["completion"] == len("Hello **you**")


def test_what_the_model_is_told(paged: Client) -> None:
    """The branch, the system message first."""
    http = paged(lambda prompt: prompt.replace("<|", "<").replace("|>", ">"))
    id_ = begun(http, system="Be brief.", temperature=0.0)
    _, first = answered(http, id_, None, "One")
    assert first["content"] == "<system>Be brief.<end><user>One<end><assistant>"
    _, second = answered(http, id_, first["id"], "Two")
    assert second["content"].endswith(f"<assistant>{first['content']}<end><user>Two<end><assistant>")
    _, other = answered(http, id_, None, "Uno")
    assert other["content"] == "<system>Be brief.<end><user>Uno<end><assistant>"
    (again,) = answered(http, id_, first["parent"])
    assert (again["parent"], again["content"]) == (first["parent"], first["content"])
    assert http.get(f"/ui/api/conversations/{id_}").json()["leaf"] == again["id"]


def test_what_it_thinks_is_apart(paged: Client) -> None:
    http = paged("<think>\nHm.\n</think>\n\nTwo.", template=THINKS)
    _, answer = answered(http, begun(http), None, "How many?")
    assert (answer["reasoning"], answer["content"]) == ("Hm.", "Two.")


def test_tools(paged: Client) -> None:
    http = paged(called, template=TOOLS)
    id_ = begun(http, tools=FUNCTIONS)
    _, calling = answered(http, id_, None, "How is it?")
    calls = calling["details"]["calls"]
    assert [call["name"] for call in calls] == ["weather", "time"]
    assert json.loads(calls[0]["arguments"]) == {"city": "Köln", "days": 2}
    results = [{"call": call["id"], "content": text} for call, text in zip(calls, ("wet", "noon"), strict=True)]
    first, second, answer = answered(http, id_, calling["id"], results=results)
    assert (first["role"], first["content"], second["content"]) == ("tool", "wet", "noon")
    assert answer["content"] == "It is noon."
    refused = http.post(f"/ui/api/conversations/{id_}/answers", json={"parent": calling["id"], "results": results[:1]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "results")


def test_json_answers(paged: Client) -> None:
    http = paged('{"a": 1} and more')
    _, answer = answered(http, begun(http, json_schema={"type": "object", "properties": {"a": {"type": "integer"}}}),
                         None, "Give")  # fmt: skip
    assert json.loads(answer["content"]) == {"a": 1}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"parent": 99, "content": "x"}, 404, "no such message"),
        ({"parent": None, "content": " \n"}, 400, "content says nothing"),
        ({"parent": None}, 400, "give one of content and results"),
        ({"parent": None, "content": "x", "results": []}, 400, "give one of content and results"),
        ({"parent": None, "results": []}, 400, "results must answer all calls"),
        ({"content": 5}, 400, "content"),
        ({"text": "x"}, 400, "Unrecognized request argument supplied: text"),
        ({"parent": None, "content": "long " * 3000}, 400, "but the model's context holds 4096"),
    ],
)
def test_requests_that_are_refused_leave_nothing(body: Any, status: int, said: str, paged: Client) -> None:
    http = paged()
    id_ = begun(http)
    answer = http.post(f"/ui/api/conversations/{id_}/answers", json=body)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True), answer.text
    assert http.get(f"/ui/api/conversations/{id_}").json()["messages"] == []


def test_a_message_follows_an_answer(paged: Client) -> None:
    http = paged()
    id_ = begun(http)
    asked_, answer = answered(http, id_, None, "Hi")
    for body in ({"parent": asked_["id"], "content": "x"}, {"parent": answer["id"]}):
        assert http.post(f"/ui/api/conversations/{id_}/answers", json=body).status_code == 400


def test_settings_are_checked(paged: Client) -> None:
    http = paged()
    bad: tuple[dict[str, Any], ...] = (
        {"temperature": -1}, {"temperatur": 1}, {"tools": [{}]}, {"seed": 2**63}, {"stop": ["x" * 2000]},
    )  # fmt: skip
    for settings in bad:
        answer = http.post("/ui/api/conversations", json={"settings": settings})
        assert (answer.status_code, answer.json()["error"]["param"].split(".")[0]) == (400, "settings")
    id_ = begun(http)
    assert http.patch(f"/ui/api/conversations/{id_}", json={"settings": {"top_p": 2}}).status_code == 400
    assert http.get(f"/ui/api/conversations/{id_}").json()["settings"] == {}


def test_a_model_that_is_not_there(paged: Client) -> None:
    http = paged()
    id_ = http.post("/ui/api/conversations", json={"model": "other"}).json()["id"]
    answer = http.post(f"/ui/api/conversations/{id_}/answers", json={"parent": None, "content": "Hi"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    http.patch(f"/ui/api/conversations/{id_}", json={"model": "model"})
    assert answered(http, id_, None, "Hi")[1]["content"] == "Hello **you**"


def test_stopping(paged: Client) -> None:
    """The stream ends as it should, with what there is; nobody else can stop it."""
    http = paged("ab " * 5000, context=16000)
    id_ = begun(http)
    seen, last = "", None
    with http.stream("POST", f"/ui/api/conversations/{id_}/answers", json={"parent": None, "content": "Go"}) as stream:
        for line in stream.iter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line[6:])
            if event["type"] == "begin":
                number = event["messages"][-1]["id"]
            elif event["type"] == "delta":
                seen += event.get("content", "")
                if len(seen) == 30:
                    assert http.post(f"/ui/api/messages/{number}/stop", json={}).json() == {"stopped": True}
            else:
                last = event["message"]
    assert last is not None
    assert (last["status"], last["content"]) == ("stopped", seen)
    assert last["details"]["usage"]["completion"] == len(seen)
    assert http.get(f"/ui/api/conversations/{id_}").json()["messages"][-1] == last
    assert http.post(f"/ui/api/messages/{number}/stop", json={}).json() == {"stopped": False}


def test_a_browser_that_closes_loses_nothing_that_was_shown(paged: Client) -> None:
    http = paged("ab " * 5000, context=16000)
    id_ = begun(http)
    seen = ""
    with http.stream("POST", f"/ui/api/conversations/{id_}/answers", json={"parent": None, "content": "Go"}) as stream:
        for line in stream.iter_lines():
            event = json.loads(line[6:]) if line.startswith("data: ") else {}
            seen += event.get("content", "")
            if len(seen) > 100:
                break

    def kept() -> Any:
        return http.get(f"/ui/api/conversations/{id_}").json()["messages"][-1]

    until(lambda: kept()["status"] == "stopped")
    assert kept()["content"].startswith(seen)
    _, answer = answered(
        http,
        id_,
        kept()["id"],
        "And?",
    )
    assert answer["status"] == "complete"


def test_an_answer_that_fails(paged: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    http = paged()
    id_ = begun(http)

    def failing(*_: object) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr("sotol.server.ui.answers.delta", failing)
    stream = events(http.post(f"/ui/api/conversations/{id_}/answers", json={"parent": None, "content": "Hi"}))
    assert [event["type"] for event in stream] == ["begin", "error"]
    assert "log says more" in stream[-1]["error"]["message"]
    message = http.get(f"/ui/api/conversations/{id_}").json()["messages"][-1]
    assert (message["status"], message["content"]) == ("failed", "H")


def test_list_search_rename_delete(paged: Client) -> None:
    http = paged()
    ids = [begun(http) for _ in range(5)]
    for number, id_ in enumerate(ids):
        answered(http, id_, None, f"Number {number} of salmon")
    first = http.get("/ui/api/conversations?limit=3").json()
    second = http.get(f"/ui/api/conversations?limit=3&before={first['next']}").json()
    listed = [item["id"] for item in first["conversations"] + second["conversations"]]
    assert (listed, second["next"]) == (ids[::-1], None)
    renamed = http.patch(f"/ui/api/conversations/{ids[2]}", json={"title": "Trout"}).json()
    assert renamed["title"] == "Trout"
    found = http.get("/ui/api/conversations", params={"search": "trout"}).json()["conversations"]
    assert [item["id"] for item in found] == [ids[2]]
    found = http.get("/ui/api/conversations", params={"search": "2 of SALMON"}).json()["conversations"]
    assert [(item["id"], item["excerpt"]) for item in found] == [(ids[2], "Number 2 of salmon")]
    assert http.delete(f"/ui/api/conversations/{ids[2]}").json() == {"deleted": True}
    for method in ("GET", "DELETE"):
        assert http.request(method, f"/ui/api/conversations/{ids[2]}").status_code == 404
    for query in ("limit=0", "limit=x", "before=x", f"limit={'9' * 30}"):
        assert http.get(f"/ui/api/conversations?{query}").status_code == 400


def test_export_and_import(paged: Client) -> None:
    http = paged()
    id_ = begun(http, system="S")
    _, answer = answered(http, id_, None, 'Rivers: "a/b" ü')
    answered(http, id_, answer["parent"])
    text = http.get(f"/ui/api/conversations/{id_}/export?form=markdown")
    assert text.headers["content-disposition"].startswith('attachment; filename="Rivers_ _a_b_ _.md"; filename*=UTF-8')
    assert text.text == '# Rivers: "a/b" ü\n\n> S\n\n## You\n\nRivers: "a/b" ü\n\n## Answer (model)\n\nHello **you**\n'
    for path in (f"/ui/api/conversations/{id_}/export", "/ui/api/export"):
        file = http.get(path).json()
        brought = http.post("/ui/api/import", json=file)
        (made,) = brought.json()["conversations"]
        again = http.get(f"/ui/api/conversations/{made['id']}/export")
        assert again.json() == http.get(f"/ui/api/conversations/{id_}/export").json()
        http.delete(f"/ui/api/conversations/{made['id']}")
    assert http.get(f"/ui/api/conversations/{id_}/export?form=pdf").status_code == 400
    file["conversations"][0]["settings"] = {"temperature": "hot"}
    refused = http.post("/ui/api/import", json=file)
    assert refused.json()["error"]["param"] == "conversations[0].settings.temperature"
    refused = http.post("/ui/api/import", json={"format": "x"})
    assert (refused.status_code, "must be an export" in refused.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "http://localhost:8080"}, 201),
        ({}, 201),
    ],
)
def test_other_sites_are_refused(headers: dict[str, str], status: int, path: Path) -> None:
    """Also where CORS lets them use the API."""
    settings = Settings(cors_origins=("*",))
    with scripted("Hello") as llm:
        app = protected(create_app(llm, settings, conversations=path), settings)
        made = asked(app, "/ui/api/conversations", "POST", json={}, headers=headers)
        assert made.status_code == status
        assert asked(app, "/ui/api/conversations", headers=headers).status_code == (200 if status == 201 else 403)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_forms_of_other_pages_change_nothing(kind: str, path: Path) -> None:
    with scripted("Hello") as llm:
        app = create_app(llm, conversations=path)
        for place in ("/ui/api/conversations", "/ui/api/import"):
            answer = asked(app, place, "POST", content=b"{}", headers={"content-type": kind} if kind else {})
            assert answer.status_code == 415


def test_each_key_has_its_own_conversations(path: Path) -> None:
    """By the key, not by its place among the keys: that changes."""
    with scripted("Hello") as llm:
        for keys in (("one", "two"), ("three", "two", "one")):
            settings = Settings(api_keys=keys)
            around = Around(Metrics(dict))
            app = protected(create_app(llm, settings, around=around, conversations=path), settings)
            if keys[0] == "one":
                made = asked(app, "/ui/api/conversations", "POST", json={}, headers={"x-api-key": "one"}).json()
            for key in keys:
                answer = asked(app, f"/ui/api/conversations/{made['id']}", headers={"x-api-key": key})
                assert answer.status_code == (200 if key == "one" else 404)
                listed = asked(app, "/ui/api/conversations", headers={"x-api-key": key}).json()["conversations"]
                assert len(listed) == (key == "one")


def test_many_answers_at_once(paged: Client, path: Path) -> None:
    http = paged("Hello, " * 30)
    ids = [begun(http) for _ in range(8)]
    threads = [threading.Thread(target=answered, args=(http, id_, None, "Hi")) for id_ in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    db = Conversations(path)  # another process could do so, too
    for id_ in ids:
        assert [(m.role, m.status) for m in db.messages("", id_)] == [("user", "complete"), ("assistant", "complete")]
    db.close()
