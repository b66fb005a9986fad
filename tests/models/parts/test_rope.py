"""Tables of RoPE against plain NumPy formulas, and the scalings that metadata gives."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotol.errors import ModelError
from sotol.models.binding.metadata import Metadata
from sotol.models.parts.rope import PARTIAL, ROPE_KEYS, Rope, read_rope
from sotol.quant import Float32Array

CONTEXT = 70


def read(width: int = 32, **keys: Any) -> Rope:
    metadata = {f"arch.rope.{key.replace('__', '.')}": value for key, value in keys.items()}
    return read_rope(Metadata(metadata, "arch"), width)


def turned(frequency: Any, size: float = 1.0) -> Float32Array:
    """The table of pairs that turn at these frequencies."""
    angle = np.outer(np.arange(CONTEXT), frequency)
    return (size * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)


def plain(pairs: int, base: float) -> Any:
    return base ** -(np.arange(pairs) / pairs)


@given(st.integers(1, 64), st.floats(2.0, 1e7))
def test_plain(pairs: int, base: float) -> None:
    table = Rope(pairs, base).table("rope", CONTEXT).value
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, turned(plain(pairs, base)), atol=1e-6)


@given(st.floats(0.5, 64.0))
def test_linear_is_positions_divided(factor: float) -> None:
    rope = read(freq_base=500.0, scaling__type="linear", scaling__factor=factor)
    np.testing.assert_allclose(rope.table("rope", CONTEXT).value, turned(plain(16, 500.0) / factor), atol=1e-6)


def test_a_factor_without_a_type_is_linear() -> None:
    assert read(scaling__factor=4.0) == read(scaling__type="linear", scaling__factor=4.0)
    assert read(scale_linear=4.0) == read(scaling__factor=4.0)


def test_the_type_none_ignores_a_factor() -> None:
    rope = read(scaling__type="none", scaling__factor=4.0)
    np.testing.assert_array_equal(rope.table("rope", CONTEXT).value, Rope(16, 10000.0).table("rope", CONTEXT).value)


def test_divisors_divide_frequencies() -> None:
    divisors = np.linspace(1, 8, 16)
    table = read().table("rope", CONTEXT, divisors).value
    np.testing.assert_allclose(table, turned(plain(16, 10000.0) / divisors), atol=1e-6)


@given(st.sampled_from([16, 32, 64, 128]), st.floats(1.0, 40.0), st.integers(64, 40000), st.floats(500.0, 1e6))
def test_yarn(width: int, factor: float, context: int, base: float) -> None:
    """By the paper's own words: pairs that turn more than 32 times over the context stay, fewer than once: divided."""
    rope = read(
        width,
        freq_base=base,
        scaling__type="yarn",
        scaling__factor=factor,
        scaling__original_context_length=context,
    )
    pairs = width // 2
    frequency = plain(pairs, base)
    low = max(0, math.floor(pairs * math.log(context / (32 * 2 * math.pi), base)))
    high = min(width - 1, math.ceil(pairs * math.log(context / (2 * math.pi), base)))
    stretched = [0.0 if i <= low else 1.0 if i >= high else (i - low) / (high - low) for i in range(pairs)]
    mixed = [(1 - s) * f + s * f / factor for f, s in zip(frequency, stretched, strict=True)]
    np.testing.assert_allclose(rope.table("rope", CONTEXT).value, turned(mixed, 0.1 * math.log(factor) + 1), atol=1e-6)
    turns = frequency * context / (2 * math.pi)
    assert all(s == 0 for s, n in zip(stretched, turns, strict=True) if n > 32 * base ** (1 / pairs))
    assert all(s == 1 for s, n in zip(stretched, turns, strict=True) if n < base ** (-1 / pairs))


def test_yarns_ramp_may_begin_and_end_between_pairs() -> None:
    """As in gpt-oss: pairs 8.09 and 17.40, by hand of the paper's formula, are where the ramp begins and ends."""
    config = {"rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "original_max_position_embeddings": 4096}
    rope = read_config(64, rope_parameters={**config, "truncate": False})
    low, high = (32 * math.log(4096 / (turns * 2 * math.pi), 150000.0) for turns in (32, 1))
    assert (round(low, 2), round(high, 2)) == (8.09, 17.40)
    stretched = [min(max((i - low) / (high - low), 0), 1) for i in range(32)]
    mixed = [(1 - s) * f + s * f / 32 for f, s in zip(plain(32, 150000.0), stretched, strict=True)]
    np.testing.assert_allclose(rope.table("rope", CONTEXT).value, turned(mixed, 0.1 * math.log(32) + 1), atol=1e-6)
    rounded = read_config(64, rope_parameters={**config, "truncate": True})
    assert rounded == read_config(64, rope_parameters=config) == rope._replace(rounded=True)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, 0.1 * math.log(8) + 1),
        ({"attn_factor": 2.0}, 2 * (0.1 * math.log(8) + 1)),
        ({"yarn_attn_factor": 1.25}, 1.25),
        ({"yarn_log_multiplier": 0.5}, (0.1 * math.log(8) + 1) / (0.05 * math.log(8) + 1)),
        ({"yarn_log_multiplier": 0.0}, 0.1 * math.log(8) + 1),  # "none"
        ({"factor": 0.5}, 1.0),
    ],
)
def test_yarns_attention_factor(keys: dict[str, float], expected: float) -> None:
    scaling: dict[str, Any] = {"type": "yarn", "factor": 8.0, "original_context_length": 4096, **keys}
    assert read(**{f"scaling__{key}": value for key, value in scaling.items()}).attention_factor == pytest.approx(
        expected
    )


def test_yarns_bounds_and_context_are_read() -> None:
    scaling: dict[str, Any] = {
        "type": "yarn",
        "factor": 2.0,
        "original_context_length": 99,
        "yarn_beta_fast": 16.0,
        "yarn_beta_slow": 0.5,
    }
    rope = read(**{f"scaling__{key}": value for key, value in scaling.items()})
    assert (rope.original_context, rope.fast, rope.slow) == (99, 16.0, 0.5)
    fields = Metadata({"a.context_length": 77, "a.rope.scaling.type": "yarn", "a.rope.scaling.factor": 2.0}, "a")
    assert read_rope(fields, 32).original_context == 77


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dimension_count": 34}, "dimension_count is 34: it must be even and at most the head width 32"),
        ({"dimension_count": 15}, "dimension_count is 15"),
        ({"freq_base": 1.0}, "freq_base is 1.0: it must be more than 1"),
        ({"scaling__type": "longrope"}, "rope.scaling.type is 'longrope': sotol has none, linear and yarn"),
        ({"scaling__type": "yarn", "scaling__factor": 2.0}, "original_context_length is missing"),
        (
            {"scaling__type": "yarn", "scaling__original_context_length": 9, "scaling__yarn_ext_factor": 0.5},
            "yarn_ext_factor must be 1",
        ),
    ],
)
def test_what_can_not_be_read(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read(**keys)


@pytest.mark.parametrize("divisor", [0.0, 1e-9, float("nan")])
def test_divisors_that_make_a_pair_spin(divisor: float) -> None:
    with pytest.raises(ModelError, match="rope: the file's scaling of RoPE turns a pair by more than 8 radians"):
        read().table("rope", CONTEXT, np.full(16, divisor))


def test_part_of_a_head_may_be_rotated() -> None:
    assert read(64, dimension_count=32).pairs == 16


def test_a_share_of_a_head_is_rotated_where_the_architecture_has_one() -> None:
    keys = {**ROPE_KEYS, "rope.partial_rotary_factor": PARTIAL}
    for place in ({"partial_rotary_factor": 0.75}, {"rope_parameters": {"partial_rotary_factor": 0.75}}):
        assert read_rope(Metadata(place, "arch", keys), 64).pairs == 24
    assert read_rope(Metadata({}, "arch", keys), 64).pairs == 32
    with pytest.raises(ModelError, match="dimension_count is 5: it must be even"):
        read_rope(Metadata({"partial_rotary_factor": 0.32}, "arch", keys), 16)


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def read_config(width: int = 32, **values: Any) -> Rope:
    return read_rope(Metadata(values, "arch", ROPE_KEYS), width)


@given(st.sampled_from([16, 64, 128]), st.sampled_from([2.0, 8.0, 32.0]), st.integers(64, 10000))
def test_llama3_keeps_short_waves_and_divides_long_ones(width: int, factor: float, context: int) -> None:
    """Between them, the share of the undivided frequency grows with the turns over the original context."""
    rope = read_config(width, rope_parameters={**LLAMA3, "factor": factor, "original_max_position_embeddings": context})
    turns = context * plain(width // 2, 500000.0) / (2 * math.pi)
    divided = np.array([
        1.0 if t >= 4 else factor if t <= 1 else 1 / ((1 - (t - 1) / 3) / factor + (t - 1) / 3) for t in turns
    ])  # fmt: skip
    np.testing.assert_allclose(rope.divisors(), divided, rtol=1e-6)
    table = rope.table("rope", CONTEXT).value
    np.testing.assert_allclose(table, turned(plain(width // 2, 500000.0) / divided), atol=1e-5)
    same = read_config(width, rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    np.testing.assert_array_equal(table, same.table("rope", CONTEXT, rope.divisors()).value)


def test_both_ways_in_which_configs_describe_a_rotation() -> None:
    """transformers 5 has everything in rope_parameters, transformers 4 a rope_scaling that may be null."""
    assert read_config(rope_theta=300.0, rope_scaling=None) == read_config(rope_parameters={"rope_theta": 300.0})
    assert read_config(rope_parameters={"rope_theta": 300.0, "rope_type": "default"}) == Rope(16, 300.0)
    old = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    assert read_config(rope_theta=500000.0, rope_scaling=old) == read_config(rope_parameters=LLAMA3)
    oldest = read_config(rope_theta=300.0, rope_scaling={"type": "linear", "factor": 4.0})
    assert oldest == read_config(rope_parameters={"rope_type": "linear", "rope_theta": 300.0, "factor": 4.0})
    assert oldest == read(freq_base=300.0, scaling__type="linear", scaling__factor=4.0)


def test_yarn_of_a_config() -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 2000}
    assert read_config(rope_parameters=yarn) == read(
        scaling__type="yarn", scaling__factor=4.0, scaling__original_context_length=2000
    )
    both = read_config(rope_parameters={**yarn, "mscale": 0.7, "mscale_all_dim": 0.5})
    assert both.attention_factor == pytest.approx((0.07 * math.log(4) + 1) / (0.05 * math.log(4) + 1))
    alone = read_config(rope_parameters={**yarn, "mscale_all_dim": 0.5})  # without the other it has no say
    assert alone.attention_factor == pytest.approx(0.1 * math.log(4) + 1)


def test_what_can_not_be_read_of_a_config() -> None:
    with pytest.raises(ModelError, match=r"low_freq_factor is 4\.0: it must be less than high_freq_factor, 4\.0"):
        read_config(rope_parameters={**LLAMA3, "low_freq_factor": 4.0})
    with pytest.raises(ModelError, match=r"rope_parameters\.original_max_position_embeddings is missing"):
        read_config(rope_parameters={**LLAMA3, "original_max_position_embeddings": None})
    with pytest.raises(ModelError, match=r"^config\.json's rope_parameters\.partial_rotary_factor is 0\.5: sotol runs"):
        read_config(rope_parameters={"rope_theta": 300.0, "partial_rotary_factor": 0.5})
    with pytest.raises(ModelError, match=r"is 'dynamic': sotol has none, linear and yarn, and config\.json's llama3"):
        read_config(rope_scaling={"type": "dynamic", "factor": 2.0})
