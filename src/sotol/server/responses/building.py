"""A response as it grows: its items from the pieces of an answer, and the events that tell of them.

The order of the events: https://platform.openai.com/docs/api-reference/responses-streaming
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sotol.answers.pieces import CallArguments, CallBegun, Content, Piece, Reasoning
from sotol.results import Completion, Delta
from sotol.server.answering import sse, token
from sotol.server.problems import Problem

__all__ = ["Building"]

Logprobs = Sequence[Mapping[str, Any]]


class Building:
    """One response. `response` is what there is of it."""

    def __init__(self, response: dict[str, Any], logprobs: Callable[[Delta], Logprobs]) -> None:
        """response: all of it but the output. logprobs: of a delta, in the shape of this API."""
        self.response, self._logprobs = response, logprobs
        self._output: list[dict[str, Any]] = response["output"]
        self._texts: list[str] = []  # of the open item
        self._open = ""
        self._number = 0  # of the next event

    def begin(self) -> Iterator[str]:
        """The first events."""
        yield self._event("response.created", response=self.response)
        yield self._event("response.in_progress", response=self.response)

    def take(self, delta: Delta) -> Iterator[str]:
        """The events of more of the answer."""
        logprobs = self._logprobs(delta)
        for piece in delta.pieces:
            yield from self._piece(piece, logprobs)

    def end(self, completion: Completion) -> Iterator[str]:
        """The last events."""
        cut = completion.finish_reason == "length"
        status = "incomplete" if cut else "completed"
        if not self._output:  # an answer without a word is one, too
            yield from self._begin("message", "msg", {"role": "assistant", "content": []})
        yield from self._close(status)
        used = completion.usage
        self.response |= {
            "status": status,
            "completed_at": int(time.time()),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": {
                "input_tokens": used.prompt_tokens,
                "input_tokens_details": {"cached_tokens": used.cached_tokens, "cache_write_tokens": 0},
                "output_tokens": used.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
                "total_tokens": used.total_tokens,
            },
        }
        yield self._event(f"response.{status}", response=self.response)

    def failed(self, problem: Problem) -> str:
        """The last event of one that fails."""
        error = {"code": "server_error", "message": problem.message}
        self.response |= {"status": "failed", "error": error}
        return self._event("response.failed", response=self.response)

    def _piece(self, piece: Piece, logprobs: Logprobs) -> Iterator[str]:
        match piece:
            case Reasoning(text):
                yield from self._begin("reasoning", "rs", {"summary": [], "content": [], "encrypted_content": None})
                self._texts.append(text)
                yield self._of_item("response.reasoning_text.delta", content_index=0, delta=text)
            case Content(text):
                yield from self._begin("message", "msg", {"role": "assistant", "content": []})
                self._texts.append(text)
                part = self._output[-1]["content"][0]
                part["logprobs"] += logprobs
                told = {"content_index": 0, "delta": text, "logprobs": logprobs}
                yield self._of_item("response.output_text.delta", **told)
            case CallBegun(_, id_, name):
                yield from self._close("completed")
                yield from self._begin("function_call", "fc", {"call_id": id_, "name": name, "arguments": ""})
            case CallArguments(_, text):
                self._texts.append(text)
                yield self._of_item("response.function_call_arguments.delta", delta=text)

    def _begin(self, kind: str, prefix: str, fields: dict[str, Any]) -> Iterator[str]:
        """Open an item, unless one of its kind is open."""
        if self._open == kind:
            return
        yield from self._close("completed")
        self._open, self._texts = kind, []
        item = {"id": f"{prefix}_{token()}", "type": kind, "status": "in_progress", **fields}
        self._output.append(item)
        yield self._event("response.output_item.added", output_index=len(self._output) - 1, item=item)
        if kind != "function_call":
            item["content"].append(_part(kind, ""))
            yield self._of_item("response.content_part.added", content_index=0, part=item["content"][0])

    def _close(self, status: str) -> Iterator[str]:
        """The end of the item that is open."""
        if not self._open:
            return
        item, text, kind = self._output[-1], "".join(self._texts), self._open
        self._open = ""
        item["status"] = status
        if kind == "function_call":
            item["arguments"] = text
            told = {"arguments": text, "name": item["name"]}
            yield self._of_item("response.function_call_arguments.done", **told)
        else:
            part = item["content"][0]
            part["text"] = text
            name = "reasoning_text" if kind == "reasoning" else "output_text"
            more = {"logprobs": part["logprobs"]} if kind == "message" else {}
            yield self._of_item(f"response.{name}.done", content_index=0, text=text, **more)
            yield self._of_item("response.content_part.done", content_index=0, part=part)
        yield self._event("response.output_item.done", output_index=len(self._output) - 1, item=item)

    def _of_item(self, kind: str, **fields: Any) -> str:
        place = {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1}
        return self._event(kind, **place, **fields)

    def _event(self, kind: str, **fields: Any) -> str:
        self._number += 1
        return sse({"type": kind, "sequence_number": self._number - 1, **fields}, kind)


def _part(kind: str, text: str) -> dict[str, Any]:
    """A part of an item's content."""
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
