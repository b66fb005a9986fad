"""sotol.engine.sampling against a naive sampler, its distributions, and the promises about seeds and batches."""

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotol.engine.options import Options, Sampling
from sotol.engine.sampling import Picked, Sampler, pick
from sotol.errors import ModelError

# few distinct values, so that ties are common; and smooth ones
tied = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=40)
smooth = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40)
options = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 0.8, 1.0, 2.5]),
        "top_k": st.sampled_from([0, 1, 3, 10, 100]),
        "top_p": st.sampled_from([0.0, 0.3, 0.77, 0.95, 1.0]),
        "min_p": st.sampled_from([0.0, 0.013, 0.33, 1.0]),
        "repeat_penalty": st.sampled_from([1.0, 1.3, 0.5]),
        "repeat_last_n": st.sampled_from([-1, 0, 2, 64]),
        "frequency_penalty": st.sampled_from([0.0, 0.7, -1.0]),
        "presence_penalty": st.sampled_from([0.0, 1.5]),
        "seed": st.integers(0, 2**63 - 1),
    }
)


def naive_logits(logits: np.ndarray, s: Sampling, prompt: list[int], generated: list[int]) -> list[float]:
    """Logits after bias and penalties, token by token."""
    out = [np.float32(x) for x in logits]
    for token, bias in s.logit_bias.items():
        out[token] += np.float32(bias)
    context = prompt + generated
    recent = context if s.repeat_last_n == -1 else context[len(context) - min(s.repeat_last_n, len(context)) :]
    for token in set(recent):
        penalty = np.float32(s.repeat_penalty)
        out[token] = out[token] / penalty if out[token] > 0 else out[token] * penalty
    for token in set(generated):
        out[token] -= np.float32(generated.count(token) * s.frequency_penalty + s.presence_penalty)
    return [float(x) for x in out]


def naive_distribution(logits: list[float], s: Sampling) -> dict[int, float]:
    """Probabilities by id: sort all tokens, then apply the filters by their definitions, one after the other."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if s.temperature == 0:
        return {order[0]: 1.0}
    kept = order[: s.top_k] if s.top_k else order
    p = [math.exp(logits[i] - logits[order[0]]) for i in kept]
    nucleus, mass, whole = 0, 0.0, sum(p)
    while nucleus < len(kept) and (mass < s.top_p * whole or s.top_p == 1 or nucleus == 0):
        mass += p[nucleus]
        nucleus += 1
    kept = [i for i, q in zip(kept[:nucleus], p, strict=False) if q >= s.min_p]
    weights = [math.exp((logits[i] - logits[order[0]]) / s.temperature) for i in kept]
    share = sum(weights)
    return {i: w / share for i, w in zip(kept, weights, strict=True)}


def near_a_threshold(logits: list[float], s: Sampling) -> bool:
    """Whether rounding decides which tokens are kept: then the naive sampler may differ."""
    kept = sorted(logits, reverse=True)[: s.top_k or None]
    p = np.exp(np.array(kept) - kept[0])
    sums = np.cumsum(p) / p.sum()
    return bool((np.abs(sums - s.top_p) < 1e-9).any() or (np.abs(p - s.min_p) < 1e-9)[1:].any()) and s.top_p < 1


@settings(max_examples=300, deadline=None)
@given(tied | smooth, options, st.data())
def test_each_pick_is_the_naive_samplers(values: list[float], chosen: dict[str, Any], data: st.DataObject) -> None:
    tokens = st.integers(0, len(values) - 1)
    bias = data.draw(st.dictionaries(tokens, st.sampled_from([-2.0, 1.0, 3.0]), max_size=2))
    prompt = data.draw(st.lists(tokens, max_size=5))
    s = Sampling(**chosen, logit_bias=bias)
    sampler, twin = Sampler(s, len(values), prompt), Sampler(s, len(values))
    logits = np.array([values], np.float32)
    generated: list[int] = []
    for _ in range(3):
        adjusted = naive_logits(logits[0], s, prompt, generated)
        expected = naive_distribution(adjusted, s)
        token = pick(logits, [sampler])[0].token
        if not near_a_threshold(adjusted, s):
            if s.temperature == 0:
                assert token in expected
            else:
                point, ends = twin.uniform(), np.cumsum(list(expected.values()))
                index = min(int(np.searchsorted(ends, point, side="right")), len(expected) - 1)
                if np.abs(ends - point).min() > 1e-9:
                    assert token == list(expected)[index]
        elif s.temperature > 0:
            twin.uniform()
        generated.append(token)


@pytest.mark.parametrize("vocabulary", [5000, 40_000])
@pytest.mark.parametrize(
    "chosen", [{}, {"top_k": 3000}, {"top_k": 0}, {"top_k": 0, "min_p": 0}, {"top_k": 0, "min_p": 0, "top_p": 1}]
)
def test_large_vocabularies_keep_the_naive_candidates(vocabulary: int, chosen: dict[str, Any]) -> None:
    """Shortcuts (block maxima, thresholds, cache-sized sums) must not change the candidates."""
    rng = np.random.default_rng(3)
    logits = np.round(rng.standard_normal((4, vocabulary)) * 4, 1).astype(np.float32)  # rounded: many ties
    samplers = [Sampler(Sampling.of(seed=i, **chosen), vocabulary) for i in range(4)]
    twins = [Sampler(s.sampling, vocabulary) for s in samplers]
    for row, twin, picked in zip(logits, twins, pick(logits, samplers), strict=True):
        expected = naive_distribution([float(x) for x in row], twin.sampling)
        index = int(np.searchsorted(np.cumsum(list(expected.values())), twin.uniform(), side="right"))
        assert picked.token == list(expected)[index]


@pytest.mark.parametrize(
    "chosen",
    [
        {"temperature": 1.0, "top_k": 0, "top_p": 1, "min_p": 0},
        {"temperature": 0.7, "top_k": 8, "top_p": 0.9, "min_p": 0.02},
        {"temperature": 1.6, "top_k": 0, "top_p": 0.8, "min_p": 0.05},
    ],
)
def test_draws_follow_the_distribution(chosen: dict[str, Any]) -> None:
    """Chi-square with a fixed seed; 0.1 % critical value by Wilson and Hilferty's approximation."""
    draws, vocabulary = 20_000, 12
    logits = (np.random.default_rng(11).standard_normal(vocabulary) * 1.5).astype(np.float32)
    s = Sampling(**chosen)
    samplers = [Sampler(Sampling.of(s, seed=seed), vocabulary) for seed in range(100)]
    rows = np.tile(logits, (len(samplers), 1))
    counts = np.zeros(vocabulary)
    for _ in range(draws // len(samplers)):
        for picked in pick(rows, samplers):
            counts[picked.token] += 1
    expected = naive_distribution([float(x) for x in logits], s)
    assert {i for i in range(vocabulary) if counts[i]} <= set(expected)
    statistic = sum((counts[i] - draws * p) ** 2 / (draws * p) for i, p in expected.items())
    freedom = len(expected) - 1
    assert freedom >= 3
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


@settings(max_examples=60, deadline=None)
@given(st.lists(options, min_size=2, max_size=6), st.integers(0, 2**32))
def test_a_request_gets_the_same_tokens_alone_and_in_any_batch(requests: list[dict[str, Any]], seed: int) -> None:
    vocabulary = 700
    logits = (np.random.default_rng(seed).standard_normal((3, len(requests), vocabulary)) * 5).astype(np.float32)
    prompt = [1, 2, 3]

    def run(members: list[int]) -> list[list[int]]:
        samplers = [Sampler(Sampling(**requests[i]), vocabulary, prompt) for i in members]
        return [[p.token for p in pick(step[members], samplers)] for step in logits]

    together = run(list(range(len(requests))))
    backwards = run(list(reversed(range(len(requests)))))
    for i in range(len(requests)):
        mine = [step[i] for step in together]
        assert mine == [step[0] for step in run([i])]
        assert mine == [step[len(requests) - 1 - i] for step in backwards]


def test_a_seed_gives_these_tokens_on_every_machine() -> None:
    logits = (np.arange(2000, dtype=np.int64) * 7919 % 997).astype(np.float32)[None] / np.float32(100)
    sampler = Sampler(Sampling(seed=2026, temperature=1.2, top_k=0, top_p=0.9, min_p=0), 2000)
    assert [pick(logits, [sampler])[0].token for _ in range(8)] == [735, 369, 176, 1610, 1540, 1734, 248, 1697]


def test_no_seed_means_another_stream_each_time() -> None:
    first, second = (Sampler(Sampling(), 10) for _ in range(2))
    assert [first.uniform() for _ in range(4)] != [second.uniform() for _ in range(4)]


def test_greedy_takes_the_lowest_id_of_equals_and_leaves_logits_alone() -> None:
    logits = np.array([[0, 3, 3, 1], [5, 5, 5, 5]], np.float32)
    before = logits.copy()
    samplers = [Sampler(Sampling(temperature=0, presence_penalty=2, logit_bias={0: 1}), 4) for _ in range(2)]
    assert [p.token for p in pick(logits, samplers)] == [1, 0]
    assert [p.token for p in pick(logits, samplers)] == [2, 1]  # 3 - 2 < 3; 5 + 1 - 2 < 5
    np.testing.assert_array_equal(logits, before)


def test_a_tiny_temperature_is_nearly_greedy() -> None:
    sampler = Sampler(Sampling(temperature=1e-310, top_k=0, seed=1), 4)
    assert {pick(np.array([[0, 3, 3, 1]], np.float32), [sampler])[0].token for _ in range(20)} == {1, 2}


def test_logprobs_are_of_the_models_own_distribution() -> None:
    logits = np.array([[1.0, 4.0, 2.0, 4.0, -3.0]], np.float32)
    exact = logits[0] - np.log(np.exp(logits[0].astype(np.float64)).sum())
    sampler = Sampler(Sampling(temperature=0, logprobs=3, logit_bias={2: 50, 1: -math.inf}), 5)
    picked = pick(logits, [sampler])[0]
    assert picked.token == 2
    assert picked.logprob == pytest.approx(exact[2], abs=1e-12)
    assert [i for i, _ in picked.top] == [1, 3, 2]
    assert [p for _, p in picked.top] == pytest.approx(exact[[1, 3, 2]], abs=1e-12)
    assert pick(logits, [Sampler(Sampling(temperature=0, logprobs=0), 5)])[0].top == ()
    assert pick(logits, [Sampler(Sampling(temperature=0), 5)]) == [Picked(1, None, ())]


@pytest.mark.parametrize("temperature", [0, 1])
def test_masks_say_what_can_be_chosen(temperature: float) -> None:
    logits = np.tile(np.arange(300, dtype=np.float32), (2, 1))
    mask = np.full(300, -np.inf, np.float32)
    mask[[4, 7]] = 0
    for _ in range(5):
        masked, free = pick(logits, [Sampler(Sampling(temperature=temperature), 300) for _ in range(2)], [mask, None])
        assert masked.token in (4, 7)
        assert free.token > 200


@pytest.mark.parametrize("chosen", [{"temperature": 0}, {}, {"top_k": 0}])
@pytest.mark.parametrize("bad", [[1, np.nan, 2], [-np.inf] * 3, [np.inf, 1, 2]])
def test_logits_without_a_choice_are_an_error(chosen: dict[str, Any], bad: list[float]) -> None:
    good = Sampler(Sampling(**chosen, presence_penalty=1), 3)
    with pytest.raises(ModelError, match="row 1 of the logits"):
        pick(np.array([[1, 2, 3], bad], np.float32), [good, Sampler(Sampling(**chosen), 3)])
    row = np.zeros(3, np.float32)
    assert good.adjusted(row) is row  # nothing was accepted


def test_accept_counts_tokens_that_come_from_elsewhere() -> None:
    sampler = Sampler(Sampling(temperature=0, frequency_penalty=1), 2)
    for _ in range(3):
        sampler.accept(0)
    assert pick(np.array([[2, 0]], np.float32), [sampler])[0].token == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1), ("temperature", math.nan), ("temperature", "hot"), ("temperature", True),
        ("top_k", -1), ("top_k", 1.5), ("top_p", 1.01), ("min_p", -1), ("repeat_penalty", 0),
        ("repeat_last_n", -2), ("frequency_penalty", 3), ("presence_penalty", math.inf), ("seed", -2), ("seed", 2**63),
        ("logprobs", 21), ("logprobs", True), ("max_tokens", 0), ("max_tokens", -3), ("logit_bias", [1]),
        ("logit_bias", {"1": 2}),
        ("logit_bias", {-1: 2}), ("logit_bias", {1: math.nan}), ("logit_bias", {1: "x"}), ("stop", ""),
        ("stop", ["a", ""]), ("stop", [1]), ("stop", 7), ("ignore_eos", 1),
    ],
)  # fmt: skip
def test_wrong_values_name_the_option(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        Sampling.of(**{name: value})  # type: ignore[arg-type]


def test_unknown_options_are_named_with_what_may_have_been_meant() -> None:
    with pytest.raises(ValueError, match="unknown sampling option 'temprature': did you mean 'temperature'"):
        Sampling.of(temprature=1)
    with pytest.raises(ValueError, match="unknown sampling option 'beams': the options are temperature, top_k"):
        Sampling.of(beams=4)


@pytest.mark.parametrize("name", Options.__annotations__)
def test_none_means_the_default(name: str) -> None:
    chosen: dict[str, Any] = {name: None}
    assert Sampling.of(**chosen) == Sampling()
    other: dict[str, Any] = {"seed": 3, "ignore_eos": True, "logit_bias": {1: 1.0}, "stop": ("a",)}
    assert getattr(Sampling.of(Sampling(**other), **chosen), name) == getattr(Sampling(), name)


def test_options_are_the_fields_of_sampling() -> None:
    assert list(Options.__annotations__) == [f.name for f in fields(Sampling) if f.name != "n"]  # named by each call


@pytest.mark.parametrize(("name", "number"), [("seed", -1), ("max_tokens", -1), ("max_tokens", -2)])
def test_numbers_that_mean_none_in_llama_cpp_and_ollama(name: str, number: int) -> None:
    chosen: dict[str, Any] = {name: number}
    assert Sampling.of(**chosen) == Sampling()


def test_a_sampler_tells_its_seed_which_gives_the_same_tokens_again() -> None:
    logits = np.linspace(0, 1, 500, dtype=np.float32)[None]
    first = Sampler(Sampling(temperature=2), 500)
    again = Sampler(Sampling(temperature=2, seed=first.seed), 500)
    assert [pick(logits, [first])[0] for _ in range(9)] == [pick(logits, [again])[0] for _ in range(9)]


def test_of_changes_a_base() -> None:
    base = Sampling.of(Sampling(stop="x"), temperature=np.float32(0.5), seed=np.int64(3), logit_bias={np.int64(4): 1})
    changed = Sampling.of(base, top_k=7)
    assert (changed.temperature, changed.top_k, changed.stop, changed.seed) == (0.5, 7, ("x",), 3)
    assert changed.logit_bias == {4: 1.0}
    assert Sampling.of() == Sampling()


def test_a_bias_outside_the_vocabulary_is_an_error() -> None:
    with pytest.raises(ValueError, match="logit_bias names token 10, but the vocabulary ends at 9"):
        Sampler(Sampling(logit_bias={10: 1}), 10)
