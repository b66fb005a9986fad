"""How quick a generation was: numbers and a sentence."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sotol.results import Completion

__all__ = ["speeds", "summary"]


def speeds(completion: "Completion") -> dict[str, float | None]:
    """Tokens per second of the prompt and of the answer; None where there was nothing to measure.

    The answer's first token belongs to the prompt's time, so one token alone has no speed. Tokens of the prompt that
    were known took no time: they do not count.
    """
    usage, timings = completion.usage, completion.timings
    later = usage.completion_tokens - 1
    return {
        "prefill": (usage.prompt_tokens - usage.cached_tokens) / timings.prefill if timings.prefill > 0 else None,
        "decode": later / timings.decode if later > 0 and timings.decode > 0 else None,
    }


def summary(completion: "Completion") -> str:
    """One line about a generation."""
    usage, timings = completion.usage, completion.timings
    speed = {name: f" ({value:.1f} tokens/s)" if value else "" for name, value in speeds(completion).items()}
    known = f", {usage.cached_tokens} of them known," if usage.cached_tokens else ""
    return (
        f"prompt {usage.prompt_tokens} tokens{known} in {timings.prefill:.2f} s{speed['prefill']}, "
        f"answer {usage.completion_tokens} tokens in {timings.decode:.2f} s{speed['decode']}, "
        f"ended by {completion.finish_reason}"
    )
