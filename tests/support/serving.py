"""A server in a thread, for tests with real clients: uvicorn on a free port of this machine."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

__all__ = ["served", "until"]


@contextmanager
def served(app: Any, **options: Any) -> Iterator[str]:
    """The address, as http://127.0.0.1:PORT, at which an application is served within the block. options: uvicorn's."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        own: dict[str, Any] = {"log_level": "error", "lifespan": "on", "ws": "none", "timeout_graceful_shutdown": 5}
        config = uvicorn.Config(app, **{**own, **options})
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # not in the main thread
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), name="server")
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            if not server.started:
                raise RuntimeError("the server did not start")
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def until(happened: Callable[[], bool]) -> None:
    """Wait for what another thread does; fails after a minute, which decides no test but those that would hang."""
    waiting = threading.Event()
    for _ in range(6000):
        if happened():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not happen within a minute")
