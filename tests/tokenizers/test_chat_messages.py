"""sotol.tokenizers.messages and habits: all forms of a conversation that clients write give the same prompt.

The templates here differ in what they expect of content and of calls, as published ones do.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.support.conversations import FORMS, TOOL, USER, Pydantic, call, calling, part

from sotol.errors import TemplateError
from sotol.tokenizers.chat import ChatTemplate
from sotol.tokenizers.messages import normalized, normalized_tools

HEAD = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% for m in messages %}<{{ m.role }}:{{ m.name }}>"
END = "{% endfor %}{% if tools is not none and not tools %}no tools{% endif %}"
CALLS = "{% for c in m.tool_calls or [] %}{{ c.type }} {{ c.function.name }} "
TEMPLATES = {
    "text": HEAD + "{{ m.content + '.' }}" + CALLS + "{{ c.function.arguments | tojson }}{% endfor %}" + END,
    "text or parts": HEAD + "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}"
    "{% endfor %}{% endif %}" + CALLS + "{{ c.function.arguments | tojson }}{% endfor %}" + END,
    "parts": HEAD + "{% for p in m.content %}{{ p.text }}{% endfor %}" + CALLS + "{{ c.function.arguments | tojson }}"
    "{% endfor %}" + END,
    "parts of users only": HEAD + "{% if m.role != 'user' or m.content is string %}{{ m.content }}{% else %}"
    "{{ m.content | map(attribute='text') | join }}{% endif %}" + CALLS + "{{ c.function.arguments | tojson }}"
    "{% endfor %}" + END,
    "arguments as text": HEAD + "{{ m.content }}" + CALLS + "{{ 'a' + c.function.arguments }}{% endfor %}" + END,
    "text as it is": HEAD + "{{ m.content }}" + CALLS + "{{ c.function.arguments }}{% endfor %}" + END,
    "both arguments": HEAD + "{{ m.content }}" + CALLS + "{{ c.function.arguments if c.function.arguments is string "
    "else c.function.arguments | tojson }}{% endfor %}" + END,
    "calls without content": HEAD + "{% if m.content is none %}" + CALLS + "{{ c.function.arguments | tojson }}"
    "{% endfor %}{% else %}{{ m.content }}{% endif %}" + END,
    "short ids": HEAD
    + "{{ m.content }}{{ m.tool_call_id }}{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}"
    "{{ raise_exception('nine!') }}{% endif %}{{ c.id }}{{ c.function.arguments | tojson }}{% endfor %}" + END,
    "a list of tools": "{% for t in tools %}{{ t.function.name }}{% endfor %}" + HEAD + "{{ m.content }}" + END,
    "no tools": "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}",
}


@pytest.mark.parametrize("forms", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_all_forms_give_one_prompt(source: str, forms: list[Any]) -> None:
    template = ChatTemplate({"default": source})
    first, *others = [template.render(messages, tools=[TOOL]) for messages in forms]
    assert others == [first] * len(others)
    assert template.render(forms[0], tools=[]) == template.render(forms[0], tools=()) == template.render(forms[0])


@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_everything_arrives(source: str) -> None:
    out = ChatTemplate({"default": source}).render(calling(None), tools=[TOOL])
    assert "one two" in out
    assert "Three" in out
    if "c.function" in source:
        assert '{"a": [1, "é"]}' in out
        assert "<tool:sum>" in out


def test_what_a_template_writes_between_parts_is_written() -> None:
    joined = "m.content | map(attribute='text') | join('/')"
    source = "{% for m in messages %}{{ m.content if m.content is string else " + joined + " }}{% endfor %}"
    assert ChatTemplate({"default": source}).render([{"role": "user", "content": [part("a"), part("b")]}]) == "a/b"
    images = [{"role": "user", "content": [{"type": "image"}, part("b")]}]
    assert ChatTemplate({"default": "{{ messages[0].content | tojson }}"}).render(images) == (
        '[{"type": "image"}, {"type": "text", "text": "b"}]'
    )


@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_parts_are_one_text(source: str) -> None:
    in_parts = [{"role": "user", "content": (part("one "), part("two"))}]
    assert "one two" in ChatTemplate({"default": source}).render(in_parts)


def test_a_developer_is_one_where_the_template_knows_it() -> None:
    said = [{"role": "developer", "content": "S"}]
    write = "{% for m in messages %}{{ m.role }}{% endfor %}"
    assert ChatTemplate({"default": write}).render(said) == "system"
    known = (
        "{% for m in messages %}{{ m.role if m.role in ('user', 'developer') else 'none' }}{{ m.content }}{% endfor %}"
    )
    assert ChatTemplate({"default": known}).render(said) == "developerS"
    lost = "{% for m in messages if m.role != 'developer' %}{{ m.role }}{% endfor %}"
    assert ChatTemplate({"default": lost}).render(said) == "system"


def test_old_calls_and_answers() -> None:
    old = [USER, {"role": "assistant", "content": None, "function_call": {"name": "sum", "arguments": "{}"}},
           {"role": "function", "name": "sum", "content": "3"}]  # fmt: skip
    new = normalized(old)
    assert new[1]["tool_calls"] == [{"type": "function", "function": {"name": "sum", "arguments": "{}"}}]
    assert "function_call" not in new[1]
    assert new[2] == {"role": "tool", "name": "sum", "content": "3"}


def test_answers_get_the_name_of_the_call_that_they_answer() -> None:
    calls = [{"id": i, "function": {"name": n, "arguments": ""}} for i, n in (("x", "a"), ("y", "b"), (None, "c"))]
    answers = [{"role": "tool", "tool_call_id": "y"}, {"role": "tool"}, {"role": "tool"}, {"role": "tool"}]
    found = normalized([{"role": "assistant", "tool_calls": calls}, *answers])[1:]
    assert [message.get("name") for message in found] == ["b", "a", "c", None]
    assert [message.get("tool_call_id") for message in found] == ["y", "x", None, None]
    assert normalized([{"role": "tool", "tool_call_id": "z", "name": "kept"}])[0]["name"] == "kept"


def test_ids_are_cut_alike_for_calls_and_answers() -> None:
    template = ChatTemplate({"default": TEMPLATES["short ids"]})
    messages = calling(None, [call("{}", id="call_0123-456789abc")], tool_call_id="call_0123-456789abc")
    assert template.render(messages).count("456789abc") == 2
    assert template.render(calling(None, [call("{}", id=None)], tool_call_id=None)).count("000000000") == 2
    assert "q7q7q7q7q" not in template.render(messages)


def test_arguments_that_are_no_object_stay_text() -> None:
    template = ChatTemplate({"default": TEMPLATES["both arguments"]})
    for arguments in ("not json", "[1]", '{"a": ', "[" * 5000, "9" * 5000):
        assert f"sum {arguments}" in template.render(calling("", [call(arguments)]))
    assert "sum {}" in template.render(calling("", [call("")]))


def test_data_is_copied_in_exact_types() -> None:
    class Text(str):
        __slots__ = ()

    inner = {"n": np.int64(3), "x": np.float32(0.5), "t": Text("t"), "b": True, "o": SimpleNamespace}
    with pytest.raises(ValueError, match=r"messages\[0\]\['o'\] is a type; chat templates take only"):
        normalized([{"role": "user", **inner}])
    inner.pop("o")
    (message,) = normalized([{"role": "user", "content": Text("hi"), **inner}])
    assert message == {"role": "user", "content": "hi", "n": 3, "x": 0.5, "t": "t", "b": True}
    assert [type(message[key]) for key in ("content", "n", "x", "t", "b")] == [str, int, float, str, bool]
    assert normalized_tools([Pydantic(**TOOL)]) == [TOOL]
    with pytest.raises(ValueError, match=r"tools\[0\] is a str; it must be a mapping"):
        normalized_tools(["sum"])


def test_a_template_that_is_too_slow_for_a_question_is_too_slow() -> None:
    source = (
        "{% for i in range(n or 90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}{{ messages[0].content }}"
    )
    template = ChatTemplate({"default": source}, seconds=0.2)
    with pytest.raises(TemplateError, match=r"it takes more than (0\.2 seconds|1,000,000 steps)"):
        template.render([USER])
