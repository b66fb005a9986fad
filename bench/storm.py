"""A storm on `sotol serve`: clients that stream, leave midway, and send nonsense; then SIGTERM in the middle of it.

    python -m bench.storm [MODEL] [--clients 64] [--seconds 180]

Prints figures, and ends with an error if the server did anything that it should not: an answer of another status than
the request deserves, a stream without its end, memory or requests left behind, a death that is not clean.
"""

import argparse
import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from statistics import median, quantiles
from urllib.parse import urlsplit

WORDS = ("river", "stone", "light", "engine", "garden", "paper", "winter", "bridge", "letter", "silver", "harbour")
NONSENSE: tuple[tuple[bytes, int], ...] = (
    (b"{", 400),
    (b"\xff\xfe", 400),
    (b"[]", 400),
    (b'{"messages": "x"}', 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": -5}', 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "n": 100000000000000000000000}', 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "wrong": 1}', 400),
    (b"[" * 100_000, 400),
    (b'{"model": "none", "messages": [{"role": "user", "content": "x"}]}', 404),
)


@dataclass
class Tally:
    """What the clients saw."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # seconds to the first text
    between: list[float] = field(default_factory=list)  # seconds between two


class Connection:
    """One HTTP/1.1 exchange, as plainly as can be: what the server sends is what is looked at."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "", parts.port or 80

    async def __aenter__(self) -> "Connection":
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def post(self, path: str, body: bytes) -> int:
        """Send a request; the answer's status."""
        head = f"POST {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\ncontent-type: application/json\r\n"
        self._writer.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        await self._writer.drain()
        status = int((await self._reader.readline()).split()[1])
        while await self._reader.readline() not in (b"\r\n", b""):
            pass
        return status

    async def events(self) -> AsyncIterator[str]:
        """The data of server-sent events, whatever chunks they come in; ends with the body."""
        async for line in self._reader:
            if line.startswith(b"data: "):
                yield line[6:].strip().decode()


async def client(number: int, address: str, tally: Tally, stopped: asyncio.Event) -> None:
    """Requests, one after the other."""
    rng = random.Random(number)
    while not stopped.is_set():
        try:
            if rng.random() < 0.1:
                await _nonsense(rng, address, tally)
            else:
                await _stream(rng, address, tally, stopped)
        except (OSError, IndexError) as error:  # IndexError: an empty answer
            if not stopped.is_set():
                tally.wrong.append(f"the connection broke: {error!r}")
            return


async def _nonsense(rng: random.Random, address: str, tally: Tally) -> None:
    body, wanted = rng.choice(NONSENSE)
    async with Connection(address) as connection:
        status = await connection.post("/v1/chat/completions", body)
    tally.counts["malformed"] += 1
    if status != wanted:
        tally.wrong.append(f"{status} instead of {wanted} for {body[:60]!r}")


async def _stream(rng: random.Random, address: str, tally: Tally, stopped: asyncio.Event) -> None:
    words = " ".join(rng.choice(WORDS) for _ in range(rng.choice((5, 50, 300))))
    request = {
        "messages": [{"role": "user", "content": f"Write about {words}."}],
        "max_tokens": rng.randrange(4, 64),
        "stream": True,
        "seed": rng.randrange(1000),
    }
    leaves = rng.randrange(1, 20) if rng.random() < 0.2 else None
    begin = last = time.perf_counter()
    texts = 0
    async with Connection(address) as connection:
        status = await connection.post("/v1/chat/completions", json.dumps(request).encode())
        if status != 200:
            if not (status == 503 and stopped.is_set()):
                tally.wrong.append(f"{status} for a good request")
            return
        async for data in connection.events():
            if data == "[DONE]":
                tally.counts["answered"] += 1
                return
            event = json.loads(data)
            if "error" in event:
                tally.counts["ended by the server"] += 1
                if not stopped.is_set():
                    tally.wrong.append(str(event["error"])[:200])
                return
            if any(choice["delta"].get("content") for choice in event["choices"]):
                now, texts = time.perf_counter(), texts + 1
                (tally.first if texts == 1 else tally.between).append(now - (begin if texts == 1 else last))
                last = now
                if texts == leaves:
                    tally.counts["left"] += 1
                    return
    if not stopped.is_set():
        tally.wrong.append("a stream ended without its end")


async def metrics(address: str) -> dict[str, float]:
    """The server's own figures, sums over labels."""
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"GET /metrics HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    found: dict[str, float] = {}
    for name, labels, value in re.findall(r"^(\w+)(\{.*?\})? ([0-9.e+-]+)$", text, re.MULTILINE):
        state = re.search(r'state="(\w+)"', labels)
        key = f"{name} {state[1]}" if state else name
        found[key] = found.get(key, 0) + float(value)
    return found


async def storm(address: str, server: "subprocess.Popen[str]", clients: int, seconds: float) -> list[str]:
    """What went wrong."""
    tally, stopped = Tally(), asyncio.Event()
    tasks = [asyncio.create_task(client(i, address, tally, stopped)) for i in range(clients)]
    memory = []
    for _ in range(10):
        await asyncio.sleep(seconds / 10)
        memory.append((await metrics(address))["process_resident_memory_bytes"] / 2**20)
    held = len([task for task in tasks if task.done()])
    print(f"resident memory, MB: {', '.join(f'{m:.0f}' for m in memory)}; clients that gave up: {held}")
    stopped.set()  # SIGTERM in the middle of it
    server.send_signal(signal.SIGTERM)
    begin = time.perf_counter()
    code = await asyncio.to_thread(server.wait, 60)
    print(f"SIGTERM: ended with {code} after {time.perf_counter() - begin:.1f} s")
    if code:
        tally.wrong.append(f"the exit code after SIGTERM was {code}")
    await asyncio.gather(*tasks)
    print(dict(tally.counts))
    for name, values in (("first text", tally.first), ("between texts", tally.between)):
        print(
            f"{name}: median {1e3 * median(values):.0f} ms, 99 of 100 below {1e3 * quantiles(values, n=100)[-1]:.0f} ms"
        )
    return tally.wrong


async def emptied(address: str) -> list[str]:
    """What is left behind once all clients are gone."""
    for _ in range(100):
        now = await metrics(address)
        if not now["sotol_sequences_running"] + now["sotol_sequences_waiting"] + now["sotol_kv_blocks held"]:
            return []
        await asyncio.sleep(0.1)
    return [f"left behind: {now}"]


async def _calm(address: str, clients: int, seconds: float) -> list[str]:
    """A shorter storm that all clients leave by themselves, and nothing is left behind."""
    tally, stopped = Tally(), asyncio.Event()
    tasks = [asyncio.create_task(client(i, address, tally, stopped)) for i in range(clients)]
    await asyncio.sleep(seconds)
    stopped.set()
    await asyncio.gather(*tasks)
    return [*tally.wrong, *await emptied(address)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=180)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "sotol", "serve", arguments.model, "--port", "0", "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = server.stdout.readline().strip()
            wrong = asyncio.run(_calm(address, arguments.clients, arguments.seconds / 6))
            wrong += asyncio.run(storm(address, server, arguments.clients, arguments.seconds))
        finally:
            server.kill()
    for what, count in Counter(wrong).most_common():
        print(f"wrong, {count} times: {what}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
