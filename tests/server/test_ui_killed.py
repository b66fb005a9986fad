"""A server that is killed while it answers the page."""

import socket
import subprocess
import sys
from pathlib import Path

import httpx
from tests.support.paging import answered, begun
from tests.support.scripted import scripted
from tests.support.serving import served, until

from sotol.conversations import Conversations
from sotol.server import Served, create_app

SERVER = """
import sys, uvicorn
from pathlib import Path
from tests.support.scripted import scripted
from sotol.server import Served, create_app

app = create_app([Served("model", scripted("ab " * 9000, context=30000))], conversations=Path(sys.argv[1]))
uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""


def test_a_server_that_is_killed_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(path), str(port)], cwd=root)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:

            def answers() -> bool:
                try:
                    return http.get("/ui/api/about").status_code == 200
                except httpx.TransportError:
                    return False

            until(answers)
            id_ = begun(http, system="S")
            seen = 0
            body = {"parent": None, "content": "Go on"}
            with http.stream("POST", f"/ui/api/conversations/{id_}/answers", json=body) as stream:
                for line in stream.iter_lines():
                    seen += line.startswith("data: ")
                    if seen == 50:
                        break
                process.kill()
    finally:
        process.kill()
        process.wait()
    db = Conversations(path)
    kept = db.get("", id_)
    assert (kept.title, kept.settings) == ("Go on", {"system": "S"})
    asked_, answer = db.messages("", id_)
    assert (asked_.content, asked_.status, answer.parent, kept.leaf) == ("Go on", "complete", asked_.id, answer.id)
    assert ("ab " * 9000).startswith(answer.content)
    db.close()
    with (
        scripted("Hello") as llm,
        served(create_app([Served("model", llm)], conversations=path)) as url,
        httpx.Client(base_url=url, timeout=60) as http,
    ):  # it goes on from there
        assert http.get(f"/ui/api/conversations/{id_}").json()["messages"][1]["status"] == "stopped"
        assert answered(http, id_, asked_.id)[-1]["content"] == "Hello"
