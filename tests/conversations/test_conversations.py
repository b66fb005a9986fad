"""The database of conversations: what is written is there, for its owner alone, whoever else writes or dies."""

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sotol.conversations import Conversations, Message, NewMessage, branch, default_path, title_of
from sotol.conversations.schema import MIGRATIONS
from sotol.errors import FormatError, SotolError

HI, HELLO = NewMessage("user", "Hi"), NewMessage("assistant", "Hello", details={"model": "m"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "conversations.db"


@pytest.fixture
def db(path: Path) -> Iterator[Conversations]:
    made = Conversations(path)
    yield made
    made.close()


def test_the_file_is_made_when_it_is_needed_and_for_its_user_alone(db: Conversations, path: Path) -> None:
    assert not path.parent.exists()
    db.listed()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    db.begin(title="one")
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["conversations.db", "conversations.db-shm", "conversations.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_what_is_acknowledged_is_synchronised(db: Conversations) -> None:
    """WAL alone would lose the last transactions to a power cut."""
    db.listed()
    assert db.file._connection is not None
    assert db.file._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.file._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_branches(db: Conversations) -> None:
    made = db.begin("", "rivers", "m", {"system": "Be brief"})
    hi, hello = db.add("", made.id, None, [HI, HELLO])
    (again,) = db.add("", made.id, hi.id, [NewMessage("assistant", "Hey")])
    edited, _ = db.add("", made.id, None, [NewMessage("user", "Hi!"), HELLO])
    messages = db.messages("", made.id)
    assert [message.content for message in branch(messages, hello.id)] == ["Hi", "Hello"]
    assert [message.content for message in branch(messages, again.id)] == ["Hi", "Hey"]
    assert db.get("", made.id).leaf == edited.id + 1
    assert db.change("", made.id, leaf=again.id).leaf == again.id
    assert messages[1] == Message(hello.id, hi.id, "assistant", "Hello", "", {"model": "m"}, "complete", hello.created)
    with pytest.raises(KeyError):
        db.change("", made.id, leaf=12345)
    with pytest.raises(KeyError):
        db.add("", db.begin().id, hi.id, [HELLO])  # a message of another conversation


def test_owners_do_not_see_each_other(db: Conversations) -> None:
    mine = db.begin("a", "secret plans")
    db.add("a", mine.id, None, [NewMessage("user", "the treasure")])
    assert db.listed("b") == db.listed("b", "treasure") == db.listed("", "secret") == []
    for act in (
        lambda: db.get("b", mine.id),
        lambda: db.messages("b", mine.id),
        lambda: db.change("b", mine.id, title="x"),
        lambda: db.add("b", mine.id, None, [HI]),
        lambda: db.delete("b", mine.id),
        lambda: db.latest("b"),
    ):
        with pytest.raises(KeyError):
            act()
    assert db.get("a", mine.id).title == "secret plans"


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("wörn", True),
        ("WÖRNITZ rhein", True),
        ("ein", True),
        ("fl", True),
        ("rhein danube", False),
        ('"', True),
        ("NEAR(", False),
        ("* OR", False),
        ("rivers of", True),
        ("日本", True),
        ("日本の川", True),
        ("%", False),
        ("\0", True),
    ],
)
def test_a_search_finds_parts_of_words(search: str, found: bool, db: Conversations) -> None:
    made = db.begin("", "Rivers of Europe")
    db.add("", made.id, None, [HI, NewMessage("assistant", 'Der Rhein und die "Wörnitz" fließen. 日本の川')])
    db.begin("", "Mountains")
    assert (made.id in [entry.conversation.id for entry in db.listed("", search)]) == found


def test_an_excerpt_shows_where(db: Conversations) -> None:
    made = db.begin("", "Rivers")
    db.add("", made.id, None, [NewMessage("user", "before " * 50 + "the Wörnitz" + " after" * 50)])
    (entry,) = db.listed("", "wörnitz")
    assert "before the Wörnitz after" in entry.excerpt
    assert len(entry.excerpt) < 120
    assert db.listed("", "rivers")[0].excerpt == ""


def test_what_is_being_written_is_found_once_it_is_whole(db: Conversations) -> None:
    made = db.begin()
    (answer,) = db.add("", made.id, None, [NewMessage("assistant", "", status="streaming")])
    db.write(answer.id, "a salmon", "", {}, "streaming")
    assert db.listed("", "salmon") == []
    db.write(answer.id, "a salmon swims", "hm", {"finish": "stop"}, "complete")
    db.write(answer.id, "a trout swims", "hm", {"finish": "stop"}, "complete")
    assert db.listed("", "salmon") == []
    assert len(db.listed("", "trout")) == 1
    assert db.messages("", made.id)[0].reasoning == "hm"
    db.delete("", made.id)
    assert db.listed("", "trout") == []
    db.write(answer.id, "too late", "", {}, "complete")  # nobody is there any more
    assert db.listed() == []


def test_a_list_in_pages(db: Conversations) -> None:
    ids = [db.begin("", f"{number}").id for number in range(7)]
    seen, before = list[str](), None
    while page := db.listed("", "", before, 3):
        seen += [entry.conversation.id for entry in page]
        before = page[-1].conversation
    assert sorted(seen) == sorted(ids)
    assert len(set(seen)) == 7


def test_a_long_conversation_can_be_deleted(db: Conversations) -> None:
    made = db.begin()
    db.add("", made.id, None, [HI] * 3000)
    db.delete("", made.id)
    assert db.file._connection is not None
    assert db.file._connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    assert db.file._connection.execute("SELECT count(*) FROM search").fetchone() == (0,)


WRITER = """
import sys
from pathlib import Path
from sotol.conversations import Conversations, NewMessage
db = Conversations(Path(sys.argv[1]))
made = db.begin("", sys.argv[2])
parent = None
for number in range(int(sys.argv[3])):
    parent = db.add("", made.id, parent, [NewMessage("user", f"{sys.argv[2]} {number} " + "word " * 400)])[0].id
    sys.stdout.write(f"{made.id} {number}\\n")  # acknowledged
    sys.stdout.flush()
"""


def writer(path: Path, name: str, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("after", [1, 17, 60])
def test_kill_9_loses_nothing_that_was_acknowledged(after: int, path: Path, db: Conversations) -> None:
    process = writer(path, "it", 100_000)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(after)]
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()
    id_, number = [line for line in [*lines, *rest.splitlines()] if line][-1].split()
    messages = db.messages("", id_)
    assert [message.content.split()[1] for message in messages[: int(number) + 1]] == [
        str(i) for i in range(int(number) + 1)
    ]
    assert len(messages) - int(number) in (1, 2)  # one may be written, and not acknowledged yet
    assert db.get("", id_).leaf == messages[-1].id
    assert db.file._connection is not None
    assert db.file._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.file._connection.execute("INSERT INTO search (search, rank) VALUES ('integrity-check', 1)")
    assert len(db.listed("", f"it {number}")) == 1


def test_processes_share_the_file(path: Path, db: Conversations) -> None:
    processes = [writer(path, name, 40) for name in ("one", "two")]
    for number in range(40):
        db.begin("", f"mine {number}")
    for process in processes:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert len(said.splitlines()) == 40
    titles = [entry.conversation.title for entry in db.listed(limit=100)]
    assert sorted(titles) == sorted(["one", "two", *(f"mine {number}" for number in range(40))])
    assert all(len(db.messages("", db.latest("", name).id)) == 40 for name in ("one", "two"))


def test_threads_share_a_connection(db: Conversations) -> None:
    made = db.begin()

    def write() -> None:
        for _ in range(20):
            db.add("", made.id, None, [HI, HELLO])

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    messages = db.messages("", made.id)
    assert len(messages) == 160
    assert all(answer.parent == asked.id for asked, answer in zip(messages[::2], messages[1::2], strict=True))


def test_a_failure_leaves_nothing_behind(db: Conversations) -> None:
    made = db.begin()
    with pytest.raises(TypeError, match="not JSON serializable"):
        db.add("", made.id, None, [HI, NewMessage("assistant", "x", details={"x": object()})])
    assert db.messages("", made.id) == []
    assert db.get("", made.id).leaf is None


def test_answers_that_nobody_writes_any_more_are_stopped(db: Conversations) -> None:
    made = db.begin()
    db.add("", made.id, None, [NewMessage("assistant", "an old salmon", status="streaming")])
    db.add("", made.id, None, [NewMessage("assistant", "", status="streaming")])
    assert db.file._connection is not None
    db.file._connection.execute("UPDATE messages SET changed = 0 WHERE content <> ''")
    db.close()
    assert [message.status for message in db.messages("", made.id)] == ["stopped", "streaming"]
    assert len(db.listed("", "salmon")) == 1


def test_what_is_no_database(path: Path, db: Conversations) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else, of some length, that is not SQLite's" * 100)
    with pytest.raises(FormatError, match="is no database of conversations, or a damaged one"):
        db.listed()


def test_a_database_of_a_newer_sotol_is_left_alone(path: Path, db: Conversations) -> None:
    db.begin("", "one")
    db.close()
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    other.close()
    with pytest.raises(SotolError, match=r"is of a newer sotol \(version 2, this one knows 1\): update sotol"):
        db.listed()


def test_a_place_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SotolError, match=r"can't be written: (file exists|not a directory)"):
        Conversations(tmp_path / "file" / "conversations.db").begin()
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: f"~/{name}")
    with pytest.raises(SotolError, match="set HOME"):
        default_path()


def test_a_lock_that_is_not_given_back(path: Path, db: Conversations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sotol.conversations.file.BUSY_SECONDS", 0.01)
    db.listed()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SotolError, match="can't be used: database is locked"):
        db.begin()
    other.execute("ROLLBACK")
    other.close()
    assert db.begin().title == ""


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Why?", "Why?"),
        ("\n\n  # A  heading\nand more", "A heading"),
        ("word " * 30, "word word word word word word word word word word word word…"),
        ("x" * 100, "x" * 60 + "…"),
        ("", ""),
        ("***", "***"),
    ],
)
def test_titles(text: str, title: str) -> None:
    assert title_of(text) == title


def test_settings_and_details_are_json(db: Conversations) -> None:
    settings = {"system": "ü\n\u2028", "stop": ["a"], "temperature": 0.5}
    made = db.begin("", "", "", settings)
    assert db.get("", made.id).settings == json.loads(json.dumps(settings))
