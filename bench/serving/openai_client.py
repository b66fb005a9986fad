"""A client of sotol's and vLLM's servers: OpenAI's `/v1/completions` with a prompt of token ids, streamed.

An event has the text of a token, and now and then of some: a character may take several. So each counts as one when it
comes, and what is missing, which `usage` tells, with the last. Lines are hardly looked at: clients run on the machine
that they measure.
"""

import json
from collections.abc import Generator, Iterable, Sequence

from bench.serving.posting import ServerError, posted

__all__ = ["arrivals", "ask"]


def ask(address: str, model: str, prompt: Sequence[int], new: int) -> Generator[int, None, None]:
    """An answer of `new` likeliest tokens, the end of the model's generation included: see `play.Ask`.

    Raises ServerError, OSError.
    """
    body = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": new,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with posted(address, "/v1/completions", body) as lines:
        yield from arrivals(lines)


def arrivals(lines: Iterable[bytes]) -> Generator[int, None, None]:
    """How many tokens each line of an answer brings, if any.

    Raises ServerError for an error in it, or an end before its last line, and ValueError for what is no event.
    """
    before = 0
    for line in lines:
        if line.startswith(b"data: [DONE]"):
            return
        if not line.startswith(b"data: "):
            continue  # empty, an event's name, or a comment that keeps the connection alive
        if line.startswith(b'data: {"error"'):
            raise ServerError(line.decode(errors="replace").strip()[:200])
        if b'"choices":[],' in line:
            count = json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"]
            if count > before:
                yield count - before
        elif b'"text":"",' not in line:
            before += 1
            yield 1
    raise ServerError(f"the answer broke off after {before} tokens")
