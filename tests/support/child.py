"""Programs in processes of their own: for what could crash, hang, or leave something behind in the tests' process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["QUIET", "said"]

PATIENCE = 300  # seconds, of what takes one or two (or a minute, where kernels are compiled): more is a hang
# For programs that must say nothing on standard error, though kernels may have to be compiled.
QUIET = "import logging; logging.getLogger('sotol').setLevel(logging.ERROR)\n"
LEFT = (
    QUIET
    + '''
import json, os, sys, threading, time

def left(path):
    """What this process has of a model: its threads, and where its file is mapped or open."""
    threads = [t.name for t in threading.enumerate() if t.name.startswith("sotol-")]
    maps = [line for line in open("/proc/self/maps") if path in line]
    files = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            files.append(os.readlink("/proc/self/fd/" + fd))
        except OSError:
            pass
    return [threads, maps, [file for file in files if path in file]]

def gone():
    """Wait until all threads have ended: those that an exception found between two lines are not waited for."""
    end = time.monotonic() + 20
    while any(t.name.startswith("sotol-") for t in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.001)

def say(value):
    print(json.dumps(value), flush=True)
'''
)


def said(program: str, *arguments: str | Path, code: int = 0) -> list[Any]:
    """What a program says with `say`, once for each call; it may use `left` and `gone`.

    It must end with this code, and silently. subprocess.TimeoutExpired if it hangs.
    """
    command = [sys.executable, "-c", LEFT + program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (code, ""), done.stderr or done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]
