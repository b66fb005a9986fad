"""How much to think, by the names and the levels of templates."""

from typing import Any

import pytest

from sotol.tokenizers.chat import ChatTemplate
from sotol.tokenizers.effort import LEVELS, level_among

SWITCH = "{{ enable_thinking }}"
WRITES = (
    "{% if reasoning_effort is not defined %}{% set reasoning_effort = 'medium' %}{% endif %}{{ reasoning_effort }}"
)
REFUSES = (
    "{% if thinking is undefined %}{% set thinking = true %}{% endif %}"
    "{% if thinking and thinking_effort not in ['low', 'high', 'max'] %}{{ raise_exception('no') }}{% endif %}"
    "{{ thinking_effort if thinking else 'off' }}"
)
NO_THINK = (
    "{% if reasoning_effort not in ['high', 'low', 'no_think'] %}{{ raise_exception('no') }}{% endif %}"
    "{{ reasoning_effort }}"
)
ABOVE = "{{ enable_thinking }}{% if enable_thinking and reasoning_effort == 'max' %} max{% endif %}"
LEAST = "{{ 'off' if reasoning_effort in [\"low\", \"minimal\"] else 'on' }}"
NONE = "{{ (reasoning_effort | lower) != 'none' }}"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (SWITCH, ["False", "False", "True", "True", "True", "True", "True"]),
        (WRITES, ["low", "low", "low", "medium", "high", "high", "high"]),
        (REFUSES, ["off", "low", "low", "high", "high", "max", "max"]),
        (NO_THINK, ["no_think", "low", "low", "high", "high", "high", "high"]),
        (ABOVE, ["False", "True", "True", "True", "True", "True max", "True max"]),
        (LEAST, ["off", "off", "off", "on", "on", "on", "on"]),
        (NONE, ["False", "True", "True", "True", "True", "True", "True"]),
        ("{{ enable_reasoning }}", [""] * 7),
    ],
)
def test_levels_go_by_what_a_template_has(source: str, told: list[str]) -> None:
    template = ChatTemplate({"default": source})
    assert [str(template.render([], reasoning_effort=level)) for level in LEVELS] == told


@pytest.mark.parametrize(
    ("source", "given", "told"),
    [
        (SWITCH, {"reasoning_effort": "high", "enable_thinking": False}, "False"),
        (SWITCH, {"reasoning_effort": "none", "enable_thinking": True}, "True"),
        (REFUSES, {"reasoning_effort": "high", "enable_thinking": False}, "off"),
        (NO_THINK, {"reasoning_effort": "high", "enable_thinking": False}, "no_think"),
        (WRITES, {"reasoning_effort": "high", "enable_thinking": False}, "high"),  # it can't but think
        (WRITES, {"reasoning_effort": "utmost"}, "utmost"),
        (WRITES, {"reasoning_effort": ["low"]}, "['low']"),
        (REFUSES, {"thinking_effort": "max"}, "max"),
    ],
)
def test_what_else_is_said_counts(source: str, given: dict[str, Any], told: str) -> None:
    assert ChatTemplate({"default": source}).render([], **given) == told


def test_a_preset_with_levels() -> None:
    template = ChatTemplate("gpt-oss")
    said = [{"role": "user", "content": "{effort}"}]
    assert "\nReasoning: medium\n" in template.render(said)
    for given, told in (("none", "low"), ("low", "low"), ("xhigh", "high"), ("much", "medium")):
        assert f"\nReasoning: {told}\n" in template.render(said, reasoning_effort=given)
    chatml = ChatTemplate("chatml")
    assert chatml.render(said, reasoning_effort="low") == chatml.render(said)


def test_the_nearest_level_is_one_that_is_named() -> None:
    for named in ({"low", "high"}, {"minimal", "low", "medium", "high", "xhigh"}, {"low", "high", "max"}):
        assert {level_among(level, named) for level in LEVELS} <= named
        assert all(level_among(level, named) == level for level in named)
