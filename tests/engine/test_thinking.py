"""The budget of thoughts: what counts, and when they are closed, however they are cut into tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import scripted as scripts

from sotol.engine.thinking import ThinkingBudget

PAIRS = [("<think>", "</think>", [1]), ("[THINK]", "[/THINK]", [2])]


def closed_after(parts: list[str], most: int, *, begun: bool = False) -> tuple[int, list[int]]:
    """After how many tokens thoughts are closed, and by which ids; all of them and [] if they are not."""
    budget = ThinkingBudget(PAIRS, most, begun=begun)
    for count, part in enumerate(parts, 1):
        if ids := budget.take(part):
            budget.close()
            return count, ids
    return len(parts), []


@pytest.mark.parametrize(
    ("parts", "most", "begun", "expected"),
    [
        (["<think>", "a", "b", "c"], 2, False, (3, [1])),
        (["\n", "<th", "ink>\n", "a", "b"], 1, False, (4, [1])),
        (["[THINK]", "a", "b"], 1, False, (2, [2])),
        (["a", "b", "c"], 2, True, (2, [1])),
        (["a", "</thi", "nk>", "b", "c"], 3, True, (5, [])),
        (["a", "[/THINK]", "b", "c"], 2, True, (4, [])),
        (["<think>", "a", "[/THINK]", "b"], 2, False, (3, [1])),
        (["<think>", "a", "</think>", "b", "<think>", "c", "d"], 2, False, (7, [])),
        (["Hi", "<think>", "a", "b"], 1, False, (4, [])),
        (["<thin", "g>", "a", "b"], 1, False, (4, [])),
        (["", "<think>", "", ""], 2, False, (4, [1])),
    ],
)
def test_when(parts: list[str], most: int, begun: bool, expected: tuple[int, list[int]]) -> None:
    assert closed_after(parts, most, begun=begun) == expected


@given(st.text("ab</think>", max_size=60), st.integers(1, 30))
def test_a_character_at_a_time(text: str, most: int) -> None:
    """So many characters are thought, but for those that would end it themselves."""
    count, ids = closed_after(list(text), most, begun=True)
    ended = text.find("</think>")
    by_itself = ended >= 0 and ended + len("</think>") <= most
    assert bool(ids) == (not by_itself and len(text) >= most)
    assert count == (most if ids else len(text))


# ---- in an answer

TEMPLATE = scripts.TEMPLATE + "{# <think> </think> <tool_call> </tool_call> #}"
OPENED = TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}")
ASKED = [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("logprobs", [None, 1])
@pytest.mark.parametrize("template", [TEMPLATE, OPENED])
def test_thoughts_end_at_the_budget(hidden: bool, logprobs: int | None, template: str) -> None:
    """The answer goes on behind what ends them, which is written for the model."""
    marks: dict[str, object] = {"special": ("<think>", "</think>")} if hidden else {"shown": ("<think>", "</think>")}
    opening = "" if template == OPENED else "<think>"
    with scripts.scripted(opening + "a" * 30, template=template, **marks) as llm:
        free = llm.chat(ASKED, max_tokens=20)
        assert (free.text, free.reasoning[:5]) == ("", "aaaaa")
        answer = llm.chat(ASKED, thinking_budget=5, logprobs=logprobs)
        assert answer.reasoning == "aaaaa"
        assert set(answer.text) == {"a"}
        assert answer.usage.reasoning_tokens in (5 + bool(opening), 6 + bool(opening))
        assert (answer.logprobs is not None) == (logprobs is not None)
        assert llm.chat(ASKED, thinking_budget=5, max_tokens=4).finish_reason == "length"


def test_what_follows_may_have_to_be_something() -> None:
    with scripts.scripted("<think>" + "a" * 500, template=TEMPLATE, special=("<think>", "</think>")) as llm:
        answer = llm.chat(ASKED, thinking_budget=5, regex="yes|no", seed=1)
        assert (answer.reasoning, answer.text in ("yes", "no")) == ("aaaaa", True)


def test_without_thinking_a_budget_is_nothing() -> None:
    with scripts.scripted("aaaa") as llm:
        assert llm.chat(ASKED, thinking_budget=1).text == "aaaa"
        assert llm.generate("<|assistant|>", thinking_budget=1).text == llm.generate("<|assistant|>").text
