"""Parts of answers in OpenAI's shapes: usage, timings, log-probabilities, pieces of an answer."""

from collections.abc import Iterable, Sequence
from typing import Any

from sotol.answers.pieces import CallArguments, CallBegun, Content, Piece, Reasoning, ToolCall
from sotol.llm import LLM
from sotol.results import Completion, TokenLogprob

__all__ = ["NEVER", "chat_logprobs", "delta", "text_logprobs", "timings", "tool_call", "usage"]

NEVER = -9999.0  # what OpenAI says for the log-probability of what never comes: JSON has no infinity


def usage(completions: Sequence[Completion], each: int = 1) -> dict[str, Any]:
    """Token counts of all answers; a prompt counts once, with its first of `each` answers."""
    firsts = completions[::each]
    prompt = sum(c.usage.prompt_tokens for c in firsts)
    answers = sum(c.usage.completion_tokens for c in completions)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answers,
        "total_tokens": prompt + answers,
        "prompt_tokens_details": {"cached_tokens": sum(c.usage.cached_tokens for c in firsts), "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": sum(c.usage.reasoning_tokens for c in completions),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def timings(completion: Completion) -> dict[str, float]:
    """llama-server's `timings`: milliseconds and tokens per second of the prompt and of the answer."""
    used, spent = completion.usage, completion.timings
    prompt, predicted = used.prompt_tokens - used.cached_tokens, used.completion_tokens
    return {
        "cache_n": used.cached_tokens,
        **_pace("prompt", prompt, spent.prefill),
        **_pace("predicted", predicted, spent.decode),
    }


def _pace(name: str, tokens: int, seconds: float) -> dict[str, float]:
    return {
        f"{name}_n": tokens,
        f"{name}_ms": round(1000 * seconds, 3),
        f"{name}_per_token_ms": round(1000 * seconds / tokens, 3) if tokens else 0.0,
        f"{name}_per_second": round(tokens / seconds, 3) if seconds > 0 else 0.0,
    }


def chat_logprobs(llm: LLM, logprobs: Iterable[TokenLogprob]) -> dict[str, Any]:
    """Of a chat's tokens."""

    def one(token: int, text: str, logprob: float) -> dict[str, Any]:
        data = llm.tokenizer.token_bytes(token, special=True)
        return {"token": text, "logprob": max(logprob, NEVER), "bytes": list(data)}

    content = [
        {**one(t.token, t.text, t.logprob), "top_logprobs": [one(o.token, o.text, o.logprob) for o in t.top]}
        for t in logprobs
    ]
    return {"content": content, "refusal": None}


def text_logprobs(logprobs: Iterable[TokenLogprob], offset: int = 0) -> dict[str, Any]:
    """Of a completion's tokens; offset: the characters before them."""
    offsets, listed = list[int](), list(logprobs)
    for entry in listed:
        offsets.append(offset)
        offset += len(entry.text)
    return {
        "tokens": [entry.text for entry in listed],
        "token_logprobs": [max(entry.logprob, NEVER) for entry in listed],
        "top_logprobs": [{other.text: max(other.logprob, NEVER) for other in entry.top} for entry in listed],
        "text_offset": offsets,
    }


def tool_call(call: ToolCall) -> dict[str, Any]:
    """A whole call."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def delta(pieces: Iterable[Piece]) -> dict[str, Any]:
    """More of an answer, as one record: clients join its parts each to its own."""
    said: dict[str, str] = {}
    calls: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        match piece:
            case Content(text):
                said["content"] = said.get("content", "") + text
            case Reasoning(text):
                said["reasoning_content"] = said.get("reasoning_content", "") + text
            case CallBegun(number, id_, name):
                function = {"name": name, "arguments": ""}
                calls[number] = {"index": number, "id": id_, "type": "function", "function": function}
            case CallArguments(number, text):
                call = calls.setdefault(number, {"index": number, "function": {"arguments": ""}})
                call["function"]["arguments"] += text
    return {**said, **({"tool_calls": list(calls.values())} if calls else {})}
