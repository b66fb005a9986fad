"""Processes that are forked from one with a model: an error at once, and a parent that goes on; spawned ones work."""

import subprocess
import sys
from pathlib import Path

from tests.support.child import PATIENCE, QUIET, said
from tests.support.tiny_model import tiny_model

ERROR = "SotolError: this model was loaded before fork(): load it in the child"

FORK = """
import asyncio, signal, warnings
from sotol import LLM, SotolError
warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
endless = dict(max_tokens=4000, ignore_eos=True, seed=1)
llm = LLM(sys.argv[1], threads=3)
streams = [llm.stream("hello", **endless) for _ in range(4)]
calls = [
    lambda: llm.generate("hello", max_tokens=3), lambda: llm.stream("hello"), lambda: llm.logits([[5]]),
    lambda: llm.chat([{"role": "user", "content": "hi"}]), lambda: asyncio.run(llm.agenerate("hello")),
    lambda: next(streams[0]),
]

def child():
    for call in calls:
        try:
            say(str(call()))
        except Exception as error:
            say(f"{type(error).__name__}: {error}")
    streams.pop().close()
    llm.close()
    say("closed")

for _ in range(8):  # at any moment of the steps that run
    next(streams[0])
    if (pid := os.fork()) == 0:
        signal.alarm(60)
        child()
        sys.exit(7)  # with all that runs when an interpreter ends
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
say(len(list(zip(range(5), streams[0]))))
"""

AGAIN = """
import signal, warnings
from sotol import LLM
warnings.simplefilter("ignore")
llm = LLM(sys.argv[1], threads=3)
expected = llm.generate("hello", max_tokens=8, seed=1).text
stream = llm.stream("hello", max_tokens=4000, ignore_eos=True)
next(stream)
if (pid := os.fork()) == 0:
    signal.alarm(60)
    del stream, llm
    with LLM(sys.argv[1], threads=3) as own:
        say(own.generate("hello", max_tokens=8, seed=1).text == expected)
    say(left(sys.argv[1]))
    sys.exit()
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
say(llm.generate("hello", max_tokens=8, seed=1).text == expected)
"""

POOL = """
import multiprocessing, sys, warnings
from sotol import LLM, SotolError
warnings.simplefilter("ignore")

def ask(path):
    try:
        return (llm or LLM(path, threads=1)).generate("hello", max_tokens=8, seed=1).text
    except SotolError as error:
        return f"SotolError: {error}"

llm = None
if __name__ == "__main__":
    llm = LLM(sys.argv[1], threads=2)
    text = ask(sys.argv[1])
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            answer = pool.apply_async(ask, (sys.argv[1],)).get(60)
            print("the same" if answer == text else answer)
"""


def test_a_forked_child_says_so_at_once(tmp_path: Path) -> None:
    path = tiny_model(tmp_path, {"llama.context_length": 4096})
    assert said(FORK, path) == [*[ERROR] * 6, "closed", 7] * 8 + [5]


def test_a_forked_child_loads_its_own(tmp_path: Path) -> None:
    path = tiny_model(tmp_path, {"llama.context_length": 4096})
    assert said(AGAIN, path) == [True, [[], [], []], 0, True]


def test_pools_of_processes(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(QUIET + POOL)
    command = [sys.executable, str(program), str(tiny_model(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stderr, done.stdout.splitlines()) == ("", [ERROR, "the same"])
