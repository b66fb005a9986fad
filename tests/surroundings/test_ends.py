"""Ends: whatever happens while a model loads or answers, nothing of it is left; what the machine refuses is said."""

from pathlib import Path

import pytest
from tests.support.child import said
from tests.support.tiny_model import tiny_model

INTERRUPTED = """
import gc, linecache
from sotol import LLM
path = sys.argv[1]

class Stop(BaseException):
    pass

def interruptible(frame):
    '''Whether a signal's handler could raise here: not at the end of a with-block before its exit, as tracing can.'''
    return not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")

def load(at):
    '''Load, and raise Stop at line number `at` of sotol's code that this thread runs; how many lines there were.'''
    lines = 0

    def line(frame, event, argument):
        nonlocal lines
        if event == "line" and interruptible(frame):
            lines += 1
            if lines == at:
                sys.settrace(None)
                raise Stop
        return line

    def call(frame, event, argument):
        return line if os.sep + "sotol" + os.sep in frame.f_code.co_filename else None

    sys.settrace(call)
    try:
        LLM(path, threads=3, progress=lambda *_: None).close()
    except Stop:
        pass
    finally:
        sys.settrace(None)
    return lines

load(0)
total = load(0)
bad = []
for at in range(1, total, max(1, total // int(sys.argv[2]))):
    load(at)
    gc.collect()
    gone()
    if (rest := left(path)) != [[], [], []]:
        bad.append([at, rest])
say(bad)
say(total)
"""

PROGRESS = """
from sotol import LLM
for at in range(1, 4):
    kept = []

    def progress(what, done, total):
        if done >= at:
            raise OSError("the caller's own")

    try:
        LLM(sys.argv[1], threads=3, progress=progress)
    except OSError as error:
        kept.append(error)  # and with it all that it passed through
    say([str(kept[0]), left(sys.argv[1])[0]])
"""

NO_THREADS = """
from sotol import LLM, SotolError
start = threading.Thread.start
for possible in range(6):
    count = 0

    def limited(thread):
        global count
        count += 1
        if count > possible:
            raise RuntimeError("can't start new thread")
        start(thread)

    threading.Thread.start = limited
    try:
        LLM(sys.argv[1], threads=3)
    except SotolError as error:
        say("load with fewer threads" in str(error))
    threading.Thread.start = start
    say(left(sys.argv[1]))
with LLM(sys.argv[1], threads=3) as llm:
    say(len(llm.generate("hello", max_tokens=3, ignore_eos=True).tokens))
"""

REFUSED = """
import resource
from sotol import LLM, SotolError
LLM(sys.argv[1], threads=2).close()
what, kind = sys.argv[2], resource.RLIMIT_AS if sys.argv[2] == "memory" else resource.RLIMIT_NOFILE
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() if what == "memory" else 3
before = resource.getrlimit(kind)
resource.setrlimit(kind, (used + (1 << 20 if what == "memory" else 0), before[1]))
try:
    LLM(sys.argv[1], threads=2, ctx=int(sys.argv[3]))
except SotolError as error:
    resource.setrlimit(kind, before)
    say(str(error))
say(left(sys.argv[1]))
LLM(sys.argv[1], threads=2).close()
"""

REQUESTS = """
import asyncio, gc, random, signal
from sotol import LLM
endless = dict(max_tokens=4000, ignore_eos=True, seed=1)
llm = LLM(sys.argv[1], threads=2)

class Stop(Exception):
    pass

def stop(*_):
    raise Stop

signal.signal(signal.SIGALRM, stop)
draw = random.Random(1)
for number in range(100):
    try:
        signal.setitimer(signal.ITIMER_REAL, draw.random() * 0.01)
        if number % 3 == 0:
            llm.generate(["hello", "there"], **endless)
        elif number % 3 == 1:
            llm.logits([[5] * 3000] * 9)
        else:
            list(llm.stream("hello", **endless))
    except Stop:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)

async def timeouts():
    for _ in range(20):
        try:
            await asyncio.wait_for(llm.agenerate(["hello", "there"], **endless), 0.005)
        except TimeoutError:
            pass
    lost = [llm.astream("hello", **endless) for _ in range(10)]
    await anext(lost[0])
    return lost  # their loop ends, with them in it

kept = asyncio.run(timeouts())
async def elsewhere():
    try:
        await asyncio.wait_for(anext(kept[0]), 20)
    except RuntimeError as error:
        return str(error)
say(asyncio.run(elsewhere()))
end = time.monotonic() + 20
while llm._engine._scheduler.active() and time.monotonic() < end:
    llm.generate("a", max_tokens=1)
llm.generate("a", max_tokens=1)
say([len(llm._engine._scheduler.active()), sum(group.held for group in llm._engine._scheduler.load().groups)])
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_model(tmp_path, {"llama.context_length": 4096})


def test_an_interruption_at_any_line_of_loading_leaves_nothing(path: Path) -> None:
    bad, total = said(INTERRUPTED, path, "60")
    assert bad == []
    assert total > 1000


def test_progress_that_raises_ends_the_loading(path: Path) -> None:
    assert said(PROGRESS, path) == [["the caller's own", []]] * 3


def test_threads_that_can_not_be_started(path: Path) -> None:
    """Three to pack, two helpers, one engine: the last is missing, or the last two, …"""
    assert said(NO_THREADS, path) == [True, [[], [], []]] * 6 + [3]


def test_memory_that_is_refused(path: Path) -> None:
    error, rest = said(REFUSED, path, "memory", "4096")
    assert "emory" in error
    assert rest == [[], [], []]


def test_files_that_can_not_be_opened(path: Path) -> None:
    error, rest = said(REFUSED, path, "files", "64")
    assert "Too many open files" in error
    assert rest == [[], [], []]


def test_requests_that_nobody_waits_for_any_more_give_their_place_back(path: Path) -> None:
    elsewhere, rest = said(REQUESTS, path)
    assert elsewhere == "this stream was made in another event loop: read it there"
    assert rest == [0, 0]
