"""A client of llama.cpp's server: `/completion` with a prompt of token ids, its answer streamed.

The protocol: https://github.com/ggml-org/llama.cpp/tree/master/tools/server, "POST /completion". An event is a line
"data: {…}" that says how many tokens were generated so far; a token whose text is an incomplete character has none, and
counts with the next.
"""

import json
from collections.abc import Generator, Iterable, Sequence
from typing import Any

from bench.serving.posting import ServerError, posted

__all__ = ["arrivals", "ask"]


def ask(address: str, prompt: Sequence[int], new: int) -> Generator[int, None, None]:
    """An answer of `new` likeliest tokens, the end of the model's generation forbidden: see `play.Ask`.

    Raises ServerError, OSError.
    """
    body = {
        "prompt": list(prompt),
        "n_predict": new,
        "ignore_eos": True,
        "temperature": 0,
        "cache_prompt": True,
        "stream": True,
    }
    with posted(address, "/completion", body) as lines:
        yield from arrivals(lines)


def arrivals(lines: Iterable[bytes]) -> Generator[int, None, None]:
    """How many tokens each line of an answer brings, if any.

    Raises ServerError for an error in it, or an end before its last line, and ValueError for what is no event.
    """
    before = 0
    for line in lines:
        name, _, value = line.partition(b":")
        if name == b"error":
            raise ServerError(value.decode(errors="replace").strip()[:200])
        if name != b"data":
            continue  # empty, or a comment that keeps the connection alive
        event: dict[str, Any] = json.loads(value)
        if "error" in event:
            raise ServerError(str(event["error"])[:200])
        if event["tokens_predicted"] > before:
            yield event["tokens_predicted"] - before
            before = event["tokens_predicted"]
        if event["stop"]:
            return
    raise ServerError(f"the answer broke off after {before} tokens")
