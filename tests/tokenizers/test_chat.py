"""sotol.tokenizers.chat: the same text as `transformers`; presets equal official templates; clear errors."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotol.errors import TemplateError
from sotol.tokenizers.chat import ChatTemplate
from sotol.tokenizers.presets import PRESETS, preset_for

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
    "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + "
    "'\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
    "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set prefix = messages[0]['content'] + '\n\n' -%}"
    "{%- set rest = messages[1:] -%}{%- else -%}{%- set prefix = '' -%}{%- set rest = messages -%}{%- endif -%}"
    "{%- for message in rest -%}{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}"
    "{{ '<start_of_turn>' + role + '\n' + (prefix if loop.first else '') }}{{ message['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
# All features of real templates in one: namespaces, macros, loop controls, filters, tests, slices, JSON, generation.
EVERYTHING = """{%- macro shout(text, times=2) -%}{{ text | upper }}{{ '!' * times }}{%- endmacro -%}
{%- set ns = namespace(count=0, names=[]) -%}
{%- for message in messages[::-1] if message.role != 'skip' -%}
{%- if loop.index > 20 -%}{%- break -%}{%- endif -%}
{%- if message.role == 'nothing' -%}{%- continue -%}{%- endif -%}
{%- set ns.count = ns.count + 1 -%}{%- set ns.names = ns.names + [message.role] -%}
{{ loop.index0 ~ '/' ~ loop.length ~ loop.last ~ loop.revindex }} {{ loop.previtem.role if loop.previtem }}
{%- generation %}{{ shout(message['content'] if message.content is string else 'none', times=3) }}{% endgeneration -%}
{% set block %}[{{ message.content | default('') | trim | replace('a', 'bb') }}]{% endset %}{{ block }}
{% else %}empty{%- endfor %}
{{ ns.names | join(', ') }} {{ ns.count }} {{ ns.names | length }} {{ ns.names | map('upper') | list }}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | tojson }}
{{ {'b': 1, 'a': [1.5, none, true], 'é<>&"': 'x'} | tojson(indent=2) }} {{ ('a', 'b') }} {{ dict(x=1).items() | list }}
{{ '%s-%05.1f' % ('x', 2.25) }} {{ '{}:{name:>6}'.format(1, name='n') }} {{ 7 // 2 }} {{ 2 ** 10 }} {{ -7 % 3 }}
{{ tools | tojson if tools is not none else 'no tools' }} {{ enable_thinking is defined and enable_thinking }}
{% for key, value in {'k': {'v': 1}}.items() %}{{ key }}={{ value | items | list }}{% endfor %}
{{ 'a,b'.split(',')[1:] | first }} {{ 'a b c d' | wordwrap(3) | indent(4, true) }}
{{ [3, 1, 2] | sort | reverse | list }}
{{ bos_token }}{{ 'x' if add_generation_prompt }}{% filter upper %}done{% endfilter %} {{ messages | length > 1 }}
"""
TOOL = {"type": "function", "function": {"name": "f", "description": 'says "é" <&>', "parameters": {"type": "object"}}}
FUNCTION = {"name": "f", "arguments": {"n": 1}}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": FUNCTION}]}
text = st.text(st.sampled_from("aZ é\n\t<|>{}%'\"&"), max_size=12)
alternating = st.tuples(st.none() | text, st.lists(text, min_size=1, max_size=5)).map(
    lambda t: (
        ([] if t[0] is None else [{"role": "system", "content": t[0]}])
        + [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(t[1])]
    )
)


def judge(source: str, messages: list[dict[str, Any]], **options: Any) -> str:
    """The text that `transformers` renders, by the same steps as `apply_chat_template`."""
    from transformers.utils import chat_template_utils as hf

    normalized = [hf._normalize_chat_messages(messages)]
    return str(hf.render_jinja_template(normalized, chat_template=source, **options)[0][0])


@pytest.mark.parametrize("source", [SMOLLM2, LLAMA3, LLAMA2, ZEPHYR, GEMMA, EVERYTHING])
@settings(max_examples=40, deadline=None)
@given(messages=alternating, generate=st.booleans())
def test_text_equals_transformers(source: str, messages: list[dict[str, Any]], generate: bool) -> None:
    ours = ChatTemplate({"default": source}, bos="<s>", eos="</s>").render(messages, add_generation_prompt=generate)
    assert ours == judge(source, messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=generate)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [CALL, {"role": "tool", "name": "f", "content": "{}"}],
        [
            {"role": "assistant", "reasoning": "r", "content": "a"},
            *({"role": r, "content": ""} for r in ("skip", "nothing")),
        ],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}],
    ],
)
def test_tools_parts_and_extras_equal_transformers(messages: list[dict[str, Any]]) -> None:
    source = (
        EVERYTHING + "{% for m in messages %}{{ m.thinking }}{{ m | tojson }}{{ m.content is defined }}{% endfor %}"
    )
    options: dict[str, Any] = {"tools": [TOOL], "enable_thinking": False, "add_generation_prompt": True}
    ours = ChatTemplate({"default": source}, bos="<s>").render(messages, **options)
    assert ours == judge(source, messages, bos_token="<s>", eos_token="", **options)


@pytest.mark.parametrize(
    ("name", "source"), [("llama3", LLAMA3), ("llama2", LLAMA2), ("zephyr", ZEPHYR), ("gemma", GEMMA)]
)
@settings(max_examples=40, deadline=None)
@given(messages=alternating, generate=st.booleans())
def test_presets_equal_the_official_templates(
    name: str, source: str, messages: list[dict[str, Any]], generate: bool
) -> None:
    official, preset = ({"default": source}, name)
    texts = [
        ChatTemplate(which, bos="<s>", eos="</s>").render(messages, add_generation_prompt=generate)
        for which in (official, preset)
    ]
    assert texts[0] == texts[1]


def test_chatml_equals_smollm2_with_a_system_message() -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": " {bos} {eos} "}]
    assert ChatTemplate("chatml", bos="B", eos="E").render(messages) == ChatTemplate({"x": SMOLLM2}).render(messages)


def test_a_preset_is_recognised_by_its_own_tokens() -> None:
    for name, preset in PRESETS.items():
        assert preset_for("llama", set(preset.tokens).__contains__) == name
    assert preset_for("gemma2", lambda _: False) == "chatml"
    assert preset_for("qwen2", {"<s>", "</s>", "<0x0A>"}.__contains__) == "chatml"


def test_metadata_gives_the_models_templates_by_name() -> None:
    metadata = {
        "tokenizer.chat_template": "plain {{ bos_token }}",
        "tokenizer.chat_template.tool_use": "tools {{ tools | length }}",
        "tokenizer.chat_templates": ["tool_use"],
    }
    template = ChatTemplate.from_metadata(metadata, bos="<s>", eos="", architecture="llama", tokens=lambda _: True)
    assert template.source == "model"
    assert template.render([]) == "plain <s>"
    assert template.render([], tools=[TOOL]) == "tools 1"
    preset = ChatTemplate.from_metadata({}, bos="", eos="", architecture="x", tokens=lambda t: "turn>" in t)
    assert preset.source == "gemma"
    with pytest.raises(TemplateError, match=r"tokenizer\.chat_template is not text"):
        ChatTemplate.from_metadata(
            {"tokenizer.chat_template": 3}, bos="", eos="", architecture="x", tokens=lambda _: False
        )
    with pytest.raises(TemplateError, match="no default chat template, only rag, tool_use"):
        ChatTemplate({"rag": "", "tool_use": ""}).render([])


@pytest.mark.parametrize(
    ("messages", "wrong"),
    [
        ("hello", r"messages is a str"),
        (["hello"], r"messages\[0\] is a str"),
        ([{"content": "x"}], r"messages\[0\]\['role'\] is None"),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": 5}], r"messages\[1\]\['content'\] is a int"),
        ([{"role": "user", "content": ["x"]}], r"messages\[0\]\['content'\]\[0\] is a str"),
        ([{"role": "user", "content": "x", "extra": {"f": print}}], r"messages\[0\]\['extra'\]\['f'\] is a builtin"),
        ([{"role": "user", "content": "x", 5j: 1}], r"messages\[0\] has a key that is a complex"),
        ([{"role": "x" * 1000 + "\n", "content": 5}], r"messages\[0\]\['content'\] is a int"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"messages\[0\]\['content'\]\[0\]\['text'\] is None"),
        ([{"role": "user", "content": "x", "tool_calls": {}}, "x"], r"messages\[1\] is a str"),
        ([{"role": "user", "content": "x", "tool_calls": "x"}], r"messages\[0\]\['tool_calls'\] is a str"),
        (
            [{"role": "user", "content": "x", "tool_calls": [{"function": {}}]}],
            r"\['tool_calls'\]\[0\] has no function",
        ),
    ],
)
def test_wrong_messages_are_named(messages: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        ChatTemplate("chatml").render(messages)


def test_endless_data_is_refused() -> None:
    loop: dict[str, Any] = {"role": "user"}
    loop["content"] = [loop]
    with pytest.raises(ValueError, match="nested more than 64 levels"):
        ChatTemplate("chatml").render([loop])


def test_presets_refuse_what_they_cannot_say() -> None:
    with pytest.raises(TemplateError, match=r"'gemma' has no place for messages\[1\] of role 'tool'; it has user"):
        ChatTemplate("gemma").render([{"role": "user", "content": ""}, {"role": "tool", "content": ""}])
    with pytest.raises(TemplateError, match="can't describe tools"):
        ChatTemplate("chatml").render([], tools=[TOOL])
    with pytest.raises(TemplateError, match="a part of type 'image'"):
        ChatTemplate("chatml").render([{"role": "user", "content": [{"type": "image"}]}])
    with pytest.raises(TemplateError, match=r"messages\[0\] calls tools, which"):
        ChatTemplate("chatml").render([CALL])
    assert (
        ChatTemplate("chatml")
        .render([{"role": "developer", "content": "a"}], tools=[])
        .startswith("<|im_start|>system")
    )
    with pytest.raises(
        ValueError, match=r"unknown chat format .chatml2.; the built-in ones are gpt-oss, .*chatml, llama3"
    ):
        ChatTemplate("chatml2")
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert ChatTemplate("mistral-v3").render(parts) == "[INST] ab[/INST]"


def test_the_callers_messages_stay_as_they_are() -> None:
    messages = [{"role": "user", "content": None, "reasoning": "r"}]
    ChatTemplate({"default": "{{ messages }}"}).render(messages)
    assert messages == [{"role": "user", "content": None, "reasoning": "r"}]


def test_the_time_can_be_asked_for() -> None:
    from datetime import datetime

    year = ChatTemplate({"default": "{{ strftime_now('%Y') }}"}).render([])
    assert int(year) - datetime.now().year in (0, -1)


def test_limits_are_the_callers() -> None:
    long = {"default": "{% for i in range(1000) %}{{ i }}{% endfor %}"}
    assert len(ChatTemplate(long).render([])) == 2890
    with pytest.raises(TemplateError, match="more than 2,000 characters"):
        ChatTemplate(long, characters=2000).render([])
    with pytest.raises(TemplateError, match="more than 0 seconds"):
        ChatTemplate(long, seconds=0).render([])


def test_errors_carry_no_more_than_a_line_of_a_conversation() -> None:
    long = "secret \x1b[31m\n" * 10_000
    messages = [{"role": "user", "content": long, "n": {long: 1}}]
    for source in (
        "{{ raise_exception(messages | tojson) }}",
        "{{ raise_exception(messages[0].content) }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages[0].n[messages[0].content ~ 'x'].y.z }}",
        "{{ messages[0].content.index('y' ~ messages[0].content) }}",
        "{{ {}[messages[0].content] | int + messages[0].content }}",
        "{{ messages[0].content | attr(messages[0].content) + 1 }}",
        "{{ namespace(**{'_' ~ messages[0].content: 1}) }}",
        "{{ '%d' % messages[0].content }}",
    ):
        with pytest.raises(TemplateError, match=r"^the chat template ") as caught:
            ChatTemplate({"default": source}).render(messages)
        text = str(caught.value)
        assert len(text) < 300
        assert text.isprintable()
        assert caught.value.__suppress_context__  # a traceback would show the template's data
    with pytest.raises(ValueError, match="is a builtin") as wrong:
        ChatTemplate("chatml").render([{"role": "user", "content": "", long: {long: print}}, {"role": "", long: 1j}])
    assert len(str(wrong.value)) < 300


@pytest.mark.parametrize(
    ("source", "on", "off"),
    [
        ("{{ 'yes' if enable_thinking else 'no' }}", "yes", "no"),
        ("{% if thinking is undefined %}{% set thinking = true %}{% endif %}{{ thinking }}", "True", "False"),
        ("{{ thinking_mode }}", "enabled", "disabled"),
        ("{% if reasoning_effort not in ['high', 'no_think'] %}?{% endif %}{{ reasoning_effort }}", "high", "no_think"),
        ("{{ reasoning_effort is defined }}", "False", "False"),
        ("{{ enable_thinking }}{{ thinking is defined }}", "TrueFalse", "FalseFalse"),
        ("{% set thinking = 3 %}{{ thinking }}", "3", "3"),
    ],
)
def test_thinking_is_switched_by_the_name_that_a_template_has_for_it(source: str, on: str, off: str) -> None:
    template = ChatTemplate({"default": source})
    said = [template.render([], enable_thinking=enabled) for enabled in (True, False)]
    assert list(map(str, said)) == [on, off]


def test_what_a_caller_says_by_the_own_name_counts() -> None:
    template = ChatTemplate({"default": "{{ thinking_mode }}"})
    assert template.render([], enable_thinking=False, thinking_mode="adaptive") == "adaptive"
