"""Kernels on disk: only what nobody else could have written is read; what is kept is whole and for this user alone."""

import multiprocessing
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from sotol.backends.cpu.building import library, store
from sotol.backends.cpu.building.folder import PrivateFolder
from sotol.backends.cpu.building.sources import source_digest
from sotol.backends.cpu.building.store import KernelStore
from sotol.backends.cpu.building.stored import Compiled, Key, label, seal, unseal
from sotol.errors import SotolError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes or owners of this kind")

KEY = ("scale", 3)
SCALE = Compiled("rows:count x out", b"\x7fELF\n\n code")
PATH = Path("kernels", "5", "avx2", "scale-3.o")
root_only = pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can give files away")


def nothing(why: str) -> None:
    pytest.fail(why)


@pytest.fixture
def shelf(tmp_path: Path) -> KernelStore:
    """A store that has one kernel."""
    shelf = KernelStore(tmp_path / "cache", "5", "avx2")
    with shelf.sharing(nothing) as sharing:
        sharing.keep(KEY, seal(shelf.label(KEY), SCALE))
    return shelf


def test_what_is_kept_is_read(shelf: KernelStore) -> None:
    assert shelf.read([KEY, ("other",)], nothing) == {KEY: SCALE}


def test_another_label_is_another_kernel() -> None:
    data = seal(label("5", "avx2", KEY), SCALE)
    assert unseal(data, label("5", "avx2", KEY)) == SCALE
    for other in (label("6", "avx2", KEY), label("5", "avx512", KEY), label("5", "avx2", ("scale", 4))):
        with pytest.raises(ValueError, match="not the kernel that its name says"):
            unseal(data, other)


def test_no_part_passes_for_the_whole() -> None:
    what = label("5", "avx2", KEY)
    data = seal(what, SCALE)
    for part in (*(data[:size] for size in range(len(data))), data + b"\0"):
        with pytest.raises(ValueError, match="damaged"):
            unseal(part, what)


def give_away(path: Path) -> None:
    os.chown(path, 65534, 65534)


def link(path: Path) -> None:
    """Put a link in the place of a file or folder, to the same file or folder."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def sparse(path: Path) -> None:
    os.truncate(path, 1 << 40)


PARTS = [PATH, *PATH.parents[:-1], Path()]  # the file, its folder, and so on up to sotol's cache folder


@pytest.mark.parametrize("part", PARTS, ids=str)
@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702, 0o1777])
def test_what_others_may_write_is_not_used(tmp_path: Path, shelf: KernelStore, part: Path, mode: int) -> None:
    (tmp_path / "cache" / part).chmod(mode)
    said = list[str]()
    assert shelf.read([KEY], said.append) == {}
    assert said == [
        f"{str(tmp_path / 'cache' / part)!r} may be written by other users: remove it or set XDG_CACHE_HOME"
    ]


@root_only
@pytest.mark.parametrize("part", PARTS, ids=str)
def test_what_somebody_else_owns_is_not_used(tmp_path: Path, shelf: KernelStore, part: Path) -> None:
    give_away(tmp_path / "cache" / part)
    said = list[str]()
    assert shelf.read([KEY], said.append) == {}
    assert "belongs to another user" in said[0]


@pytest.mark.parametrize("part", PARTS[:-1], ids=str)
def test_links_are_not_followed(tmp_path: Path, shelf: KernelStore, part: Path) -> None:
    link(tmp_path / "cache" / part)
    said = list[str]()
    assert shelf.read([KEY], said.append) == {}
    assert len(said) == 1


def test_the_cache_folder_itself_may_be_a_link(tmp_path: Path, shelf: KernelStore) -> None:
    """Many have theirs on another disk."""
    link(tmp_path / "cache")
    assert shelf.read([KEY], nothing) == {KEY: SCALE}


@pytest.mark.parametrize("change", [pipe, folder, sparse])
def test_what_is_no_file_of_a_sane_size_is_not_read(
    tmp_path: Path, shelf: KernelStore, change: Callable[[Path], None]
) -> None:
    change(tmp_path / "cache" / PATH)
    said = list[str]()
    assert shelf.read([KEY], said.append) == {}
    assert "is no file of this kind" in said[0]


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_folders_and_files_are_for_this_user_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        shelf = KernelStore(tmp_path / "new" / "cache", "5", "avx2")
        with shelf.sharing(nothing) as sharing:
            sharing.keep(KEY, seal(shelf.label(KEY), SCALE))
    finally:
        os.umask(before)
    modes = {path.relative_to(tmp_path).name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes.pop("scale-3.o") == 0o600
    assert modes.pop("lock") == 0o600
    assert set(modes) == {"new", "cache", "kernels", "5", "avx2"}
    assert set(modes.values()) == {0o700}


def test_a_file_is_in_place_whole_or_not_at_all(
    tmp_path: Path, shelf: KernelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say: the old file stays, and nothing is left of the new one."""

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    said = list[str]()
    with shelf.sharing(said.append) as sharing:
        monkeypatch.setattr(os, "replace", full)
        sharing.keep(KEY, b"new")
    assert "No space left on device" in said[0]
    assert shelf.read([KEY], nothing) == {KEY: SCALE}
    assert {path.name for path in (tmp_path / "cache" / PATH).parent.iterdir()} == {"lock", "scale-3.o"}


def test_what_dead_writers_left_is_removed(tmp_path: Path, shelf: KernelStore) -> None:
    """Of the kernels that are now compiled here; a writer of another one may be alive."""
    folder = (tmp_path / "cache" / PATH).parent
    left, others = folder / "rows.o.12345.partial", folder / "add.o.12345.partial"
    left.write_bytes(b"half")
    others.write_bytes(b"half")
    with shelf.sharing(nothing) as sharing:
        assert list(next(sharing.claims(lambda: [("rows",)]))) == [("rows",)]
        assert not left.exists()
        assert others.exists()


def hold(top: Path, ready: "multiprocessing.connection.Connection[bool, str]", keys: Sequence[Key]) -> None:
    """Another process that has kernels to compile, and keeps one after the other; the last word ends it."""
    shelf = KernelStore(top, "5", "avx2")
    with shelf.sharing(nothing) as sharing:
        for key in next(sharing.claims(lambda: keys)):
            ready.send(True)
            if ready.recv() == "die":
                os._exit(1)
            sharing.keep(key, seal(shelf.label(key), SCALE))
        ready.send(True)
        ready.recv()


@contextmanager
def another_process(top: Path, keys: Sequence[Key]) -> Iterator[Callable[[str], None]]:
    """A process that compiles these; gives what lets it keep the next kernel, or die."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(top, there, keys))
    process.start()
    there.close()
    here.recv()

    def go(word: str) -> None:
        here.send(word)
        if word != "die":
            here.recv()

    try:
        yield go
    finally:
        here.close()
        process.join()


def test_what_another_process_compiles_is_waited_for(tmp_path: Path) -> None:
    """And what it does not compile is not."""
    shelf, theirs, own = KernelStore(tmp_path, "5", "avx2"), [("scale", 1), ("scale", 2), ("scale", 3)], ("scale", 4)
    found = dict[Key, Compiled]()
    with another_process(tmp_path, theirs) as go:

        def missing() -> list[Key]:
            if own in found and len(found) < 4:
                go("keep")
            keys: list[Key] = [*theirs, own]
            found.update(shelf.read(keys, nothing))
            return [key for key in keys if key not in found]

        with shelf.sharing(nothing) as sharing:
            for claimed in sharing.claims(missing):
                assert claimed == [own]
                found[own] = SCALE
    assert len(found) == 4


def test_a_lock_dies_with_its_owner(tmp_path: Path) -> None:
    shelf, asked = KernelStore(tmp_path, "5", "avx2"), list[None]()
    with another_process(tmp_path, [("scale", 1)]) as go:

        def missing() -> list[Key]:
            asked.append(None)
            if len(asked) == 4:
                go("die")
            return [("scale", 1)]

        with shelf.sharing(nothing) as sharing:
            assert list(next(sharing.claims(missing))) == [("scale", 1)]
            assert len(asked) >= 4  # it waited until then


def test_an_owner_that_keeps_nothing_is_not_waited_for_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_PATIENCE", 0.3)
    shelf, key = KernelStore(tmp_path, "5", "avx2"), ("scale", 1)
    with another_process(tmp_path, [key]), shelf.sharing(nothing) as sharing:
        assert list(next(sharing.claims(lambda: [key]))) == [key]
        sharing.keep(key, seal(shelf.label(key), SCALE))
    assert shelf.read([key], nothing)


def test_what_another_kept_before_the_claim_is_not_compiled(tmp_path: Path) -> None:
    """Between the look and the claim: and the claim is given up."""
    shelf, key = KernelStore(tmp_path, "5", "avx2"), ("scale", 1)
    looks = [[key], []]
    with shelf.sharing(nothing) as sharing:
        assert list(sharing.claims(lambda: looks.pop(0))) == []
        with another_process(tmp_path, [key]) as go:  # which could not have it else
            go("keep")


def test_where_locks_do_not_work_each_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    shelf = KernelStore(tmp_path, "5", "avx2")
    with shelf.sharing(nothing) as sharing:
        assert list(next(sharing.claims(lambda: [KEY]))) == [KEY]
        sharing.keep(KEY, seal(shelf.label(KEY), SCALE))
    assert shelf.read([KEY], nothing) == {KEY: SCALE}


def test_kernels_of_sources_that_nobody_runs_are_removed(tmp_path: Path, shelf: KernelStore) -> None:
    kernels = tmp_path / "cache" / "kernels"
    days_ago = {"fresh": 29, "old": 31, "5": 40}
    for name, days in days_ago.items():
        (kernels / name / "avx2").mkdir(parents=True, exist_ok=True)
        (kernels / name / "avx2" / "rows.o").touch()
        then = time.time() - days * 24 * 3600
        os.utime(kernels / name / "avx2", (then, then))
        os.utime(kernels / name, (then, then))
    assert shelf.read([KEY], nothing)  # which says that they are in use
    assert time.time() - (kernels / "5" / "avx2").stat().st_mtime < 3600
    with shelf.sharing(nothing):
        pass
    assert {path.name for path in kernels.iterdir()} == {"5", "fresh"}


def test_stores_are_listed_and_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_cache_folder", lambda: tmp_path)
    assert library.stores() == []
    library.clear()
    for sources, level in (("old", "avx2"), (source_digest(), "avx512")):
        shelf = KernelStore(tmp_path, sources, level)
        with shelf.sharing(nothing) as sharing:
            sharing.keep(KEY, b"12345")
        os.utime(tmp_path / "kernels" / sources / level, (len(sources),) * 2)
    (tmp_path / "kernels" / "stray").touch()
    assert [(s.sources, s.level, s.files, s.bytes, s.current) for s in library.stores()] == [
        (source_digest(), "avx512", 1, 5, True),
        ("old", "avx2", 1, 5, False),
    ]
    library.clear()
    assert library.stores() == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_removed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_cache_folder", lambda: tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "kernels").symlink_to("elsewhere")
    with pytest.raises(SotolError, match="can't be removed"):
        library.clear()
    assert (tmp_path / "elsewhere").is_dir()


def test_no_descriptor_is_left_open(tmp_path: Path, shelf: KernelStore) -> None:
    (tmp_path / "cache" / PATH.parent).chmod(0o777)
    with PrivateFolder.open(tmp_path) as open_folder:
        lowest = open_folder._descriptor
    for _ in range(3):
        shelf.read([KEY], lambda _why: None)
        with shelf.sharing(lambda _why: None):
            pass
    with PrivateFolder.open(tmp_path) as open_folder:
        assert open_folder._descriptor == lowest
