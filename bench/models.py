"""Clients that want now this model and now that of a server whose memory does not hold all of them.

    python -m bench.models [MODEL] [--models 3] [--fit 2] [--clients 8] [--seconds 180]

Starts `sotol serve` with one model under several names, and memory for `--fit` of them. Prints figures, and ends with
an error if an answer was wrong or cut, a request failed, the memory of the process grew, or the end was not clean.
"""

import argparse
import http.client
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

from sotol.catalog import find_model
from sotol.loading import LoadOptions, memory_of

PROMPTS = ("Name a river.", "Why is the sky blue?", "Write a line about rain.", "What is 2 + 2?")
TOKENS = 16
CONTEXT = 512
GROWTH = 0.15  # of the process' memory, from a third of the time to its end: more is a leak


class Tally:
    """What the clients saw."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.texts: dict[str, set[str]] = {prompt: set() for prompt in PROMPTS}
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.seconds: list[float] = []


def ask(address: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
    """One request; its status and its whole answer."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    try:
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def client(address: str, names: list[str], number: int, until: float, tally: Tally) -> None:
    """Requests, one after the other, whole and as streams, until the time is over."""
    chance = random.Random(number)
    while time.monotonic() < until:
        name, prompt, stream = chance.choice(names), chance.choice(PROMPTS), chance.random() < 0.5
        body = {"model": name, "messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS,
                "temperature": 0, "stream": stream}  # fmt: skip
        begin = time.monotonic()
        try:
            status, data = ask(address, "/v1/chat/completions", body)
            text = _streamed(data.decode()) if stream else _whole(data)
        except Exception as error:  # noqa: BLE001  (whatever went wrong is a finding)
            status, text = 0, repr(error)
        with tally.lock:
            tally.counts[name] += 1
            tally.seconds.append(time.monotonic() - begin)
            if status == 200:
                tally.texts[prompt].add(text)
            else:
                tally.wrong.append(f"{name}: {status} {text[:200]}")


def _whole(data: bytes) -> str:
    answer = json.loads(data)
    return str(answer["choices"][0]["message"]["content"]) if "choices" in answer else json.dumps(answer)


def _streamed(text: str) -> str:
    """What a stream says; ValueError if it has no proper end."""
    if not text.endswith("data: [DONE]\n\n"):
        raise ValueError(f"no end: {text[-200:]}")
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def resident(process: "subprocess.Popen[str]") -> int:
    """Bytes of memory that a process has (Linux)."""
    with open(f"/proc/{process.pid}/statm") as file:  # noqa: PTH123  (no file in truth)
        return int(file.read().split()[1]) * 4096


def main() -> None:
    """Run the clients, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--fit", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=180)
    given = parser.parse_args()
    names = [f"m{number}" for number in range(given.models)]
    memory = int((given.fit + 0.5) * memory_of(find_model(given.model), LoadOptions(ctx=CONTEXT)))
    command = [sys.executable, "-m", "sotol", "serve", *[given.model] * given.models, "--port", "0",
               "--ctx", str(CONTEXT), "--keep-alive", "3", "--max-memory", str(memory)]  # fmt: skip
    command += ["--log-level", "warning"]
    command += [option for name in names for option in ("--alias", name)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    tally, sizes = Tally(), list[int]()
    try:
        address = process.stdout.readline().strip()
        until = time.monotonic() + given.seconds
        threads = [
            threading.Thread(target=client, args=(address, names, n, until, tally)) for n in range(given.clients)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(1)
            sizes.append(resident(process))
        metrics = ask(address, "/metrics")[1].decode()
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    finally:
        process.kill()
    wrong = tally.wrong + [f"{prompt}: {len(texts)} different answers" for prompt, texts in tally.texts.items()
                           if len(texts) > 1]  # fmt: skip
    first, last = sizes[: len(sizes) // 3], sizes[-len(sizes) // 3 :]
    growth = max(last) / max(first) - 1
    if growth > GROWTH:
        wrong.append(f"the process grew by {growth:.0%}")
    if code != 0:
        wrong.append(f"the exit code is {code}")
    counted = re.findall(r"^(sotol_model_(?:un)?loads_total{.*}) (\d+)", metrics, re.MULTILINE)
    sys.stdout.write(
        f"{sum(tally.counts.values())} answers in {given.seconds:g} s: {dict(tally.counts)}\n"
        f"seconds of an answer: median {median(tally.seconds):.2f},"
        f" 99 of 100 {quantiles(tally.seconds, n=100)[98]:.2f}, longest {max(tally.seconds):.2f}\n"
        + "".join(f"{name} {count}\n" for name, count in counted)
        + f"memory: {memory >> 20} MiB allowed, at most {max(sizes) >> 20} MiB resident, grown by {growth:.1%}\n"
    )
    if wrong:
        sys.exit("\n".join(["wrong:", *wrong[:20]]))


if __name__ == "__main__":
    main()
