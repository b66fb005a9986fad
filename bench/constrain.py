"""What a constraint costs: seconds per token of an answer, with one and without, in turn.

    python -m bench.constrain [--rounds N] [--tokens N] [--batch 1 16]

It prints lines of JSON: what parts of a token cost; what the processor does between two steps; and for each batch and
constraint the medians over the rounds of milliseconds per token without and with it, and of their ratio in a round, and
the best of each. In "text", "strings" and "object" nearly every token is chosen; in "records" most of the text must be
as it is, and such tokens run together, so that answers are faster than free ones. The model is the default one.
"""

import argparse
import json
from statistics import median
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from sotol import LLM, Sampling
from sotol.engine.constrain import Grammars
from sotol.engine.sampling import Sampler, pick

__all__ = ["main"]

PROMPT = [{"role": "user", "content": "Write a long list of the animals of the sea, and what they eat, as JSON."}]
STRING, NUMBER = {"type": "string"}, {"type": "integer"}
RECORD = {
    "type": "object",
    "properties": {
        "name": {**STRING, "maxLength": 24},
        "length_in_metres": NUMBER,
        "lives_in": {"enum": ["sea", "river"]},
    },
    "required": ["name", "length_in_metres", "lives_in"],
    "additionalProperties": False,
}
CONSTRAINTS: dict[str, dict[str, Any]] = {
    "text": {"regex": r"(?s:.*)"},
    "strings": {"schema": {"type": "array", "items": STRING, "minItems": 1000}},
    "object": {"json": True},
    "records": {"schema": {"type": "array", "items": RECORD, "minItems": 1000}},
}


def seconds(llm: LLM, batch: int, tokens: int, seed: int, constraint: dict[str, Any]) -> float:
    """Per token of each answer, from its first token on."""
    done = llm.chat(PROMPT, n=batch, max_tokens=tokens, seed=seed, ignore_eos=True, **constraint)
    return median(one.timings.decode / max(len(one.tokens) - 1, 1) for one in done)


def compare(llm: LLM, batch: int, rounds: int, tokens: int) -> None:
    """A line for each constraint."""
    for name, constraint in CONSTRAINTS.items():
        llm.compile(Sampling(**constraint))
        free, bound = list[float](), list[float]()
        for seed in range(rounds):
            for times, given in (free, {}), (bound, constraint):
                times.append(seconds(llm, batch, tokens, seed, given))
        ratio = median(b / f for f, b in zip(free, bound, strict=True))
        print(json.dumps({
            "batch": batch, "constraint": name, "free_ms": round(1e3 * median(free), 3),
            "constrained_ms": round(1e3 * median(bound), 3), "ratio": round(ratio, 3),
            "best_free_ms": round(1e3 * min(free), 3), "best_constrained_ms": round(1e3 * min(bound), 3),
        }))  # fmt: skip


def between_steps(llm: LLM, batch: int, tokens: int) -> None:
    """A line for each constraint: microseconds of the processor that the engine's thread takes between two steps.

    Unlike times of the clock, they say something on a machine that others use, too. Masks of the other thread are not
    in them, nor is a step itself: what a constraint adds is to be compared with what a step takes.
    """
    runner = llm._loaded.runner
    run, spent, left = runner.run, list[float](), list[float]()

    def watched(step: Any) -> Any:
        if left:
            spent.append(thread_time() - left.pop())
        result = run(step)
        left.append(thread_time())
        return result

    runner.run = watched  # type: ignore[method-assign]
    try:
        for name, constraint in {"none": dict[str, Any](), **CONSTRAINTS}.items():
            seconds(llm, batch, 4, 0, constraint)
            spent.clear()
            for seed in range(3):
                seconds(llm, batch, tokens, seed, constraint)
            print(json.dumps({"batch": batch, "constraint": name, "between_us": round(1e6 * median(spent))}))
    finally:
        runner.run = run  # type: ignore[method-assign]


def parts(llm: LLM) -> None:
    """Microseconds of a token's parts: its mask, taking it and looking for forced ones, and the choice."""
    vocabulary = len(llm.tokenizer)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, vocabulary), scale=3).astype(np.float32)
    for name, constraint in CONSTRAINTS.items():
        compiled = Grammars(llm.tokenizer).compile(Sampling(**constraint))
        assert compiled is not None
        matcher = compiled.matcher(insist=True)
        sampler = Sampler(Sampling(seed=1), vocabulary)
        masking, choosing, taking = list[float](), list[float](), list[float]()
        for _ in range(300):
            logits[0] = np.roll(logits[0], 7919)
            begin = perf_counter()
            mask = matcher.mask()
            middle = perf_counter()
            (picked,) = pick(logits, [sampler], [mask])
            chosen = perf_counter()
            matcher.accept(picked.token)
            matcher.forced()
            if matcher.over:
                matcher = compiled.matcher(insist=True)
            taking.append(perf_counter() - chosen)
            masking.append(middle - begin)
            choosing.append(chosen - middle)
        free = list[float]()
        for _ in range(300):
            begin = perf_counter()
            pick(logits, [sampler])
            free.append(perf_counter() - begin)
        print(json.dumps({
            "constraint": name, "mask_us": round(1e6 * median(masking)), "mask_worst_us": round(1e6 * max(masking)),
            "pick_us": round(1e6 * median(choosing)), "pick_free_us": round(1e6 * median(free)),
            "take_us": round(1e6 * median(taking)),
        }))  # fmt: skip


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    options = parser.parse_args()
    with LLM() as llm:
        parts(llm)
        for batch in options.batch:
            seconds(llm, batch, 16, 0, {})
            between_steps(llm, batch, options.tokens)
            compare(llm, batch, options.rounds, options.tokens)


if __name__ == "__main__":
    main()
