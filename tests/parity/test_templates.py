"""llama.cpp's collection of real chat templates: each as `transformers` writes it, in whatever form messages come.

Control tokens in the text are the template's, and are all found.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from tests.support.conversations import FORMS

from sotol.errors import TemplateError
from sotol.tokenizers import Tokenizer
from sotol.tokenizers.bpe import BYTE_OF_CHARACTER
from sotol.tokenizers.chat import ChatTemplate
from sotol.tokenizers.habits import Habits
from sotol.tokenizers.metering import RenderLimits
from sotol.tokenizers.provenance import unmarked
from sotol.tokenizers.sandbox import CompiledTemplate

FOLDER = Path(os.environ.get("SOTOL_PARITY", "")) / "templates"
TEMPLATES = sorted(FOLDER.glob("*.jinja")) if os.environ.get("SOTOL_PARITY") else []
if not TEMPLATES:
    pytest.skip("no templates: SOTOL_PARITY names no folder with templates/*.jinja", allow_module_level=True)

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": 'é "q"'}},
    "required": ["city"],
}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Get <the> weather & more", "parameters": PARAMETERS},
}
CALL: dict[str, Any] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "abcdef123", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
    ],
}
BOTH = {
    **CALL,
    "reasoning_content": "Twice.",
    "tool_calls": [*CALL["tool_calls"], {**CALL["tool_calls"][0], "id": "abcdef124"}],
}
RESULT = {"role": "tool", "name": "weather", "tool_call_id": "abcdef123", "content": '{"t": 21}'}


def said(role: str, content: object) -> dict[str, Any]:
    return {"role": role, "content": content}


CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "plain": ([said("user", "Hi there")], {}),
    "system": ([said("system", " Be kind. "), said("user", " Hello ")], {}),
    "turns": (
        [said("user", "a\nb"), said("assistant", "<think>\nhm\n</think>\n\nyes"), said("user", "more")],
        {},
    ),
    "no prompt": ([said("user", "q"), said("assistant", "a")], {"add_generation_prompt": False}),
    "tools": ([said("user", "weather?")], {"tools": [TOOL]}),
    "calls": ([said("system", "S"), said("user", "weather?"), CALL, RESULT], {"tools": [TOOL]}),
    "results": (
        [
            said("user", "both?"),
            BOTH,
            RESULT,
            {**RESULT, "tool_call_id": "abcdef124"},
            said("assistant", "A"),
            said("user", "B"),
        ],
        {"tools": [TOOL], "enable_thinking": True},
    ),
    "image": ([said("user", [{"type": "image"}, {"type": "text", "text": "What is it?"}])], {}),
    "reasoning": (
        [said("user", "q"), {**said("assistant", "a"), "reasoning_content": "because"}, said("user", "r")],
        {"enable_thinking": False},
    ),
}
# preset: a template of the family, which for a conversation with a system message adds nothing of its own
PRESETS = {
    "chatml": "Qwen-Qwen2.5-7B-Instruct",
    "phi3": "microsoft-Phi-3.5-mini-instruct",
    "mistral-v7": "Mistral-Small-3.2-24B-Instruct-2506",
    "mistral-v3-tekken": "mistralai-Mistral-Nemo-Instruct-2407",
    "granite": "ibm-granite-granite-3.3-2B-Instruct",
    "gemma4": "google-gemma-4-31B-it",
    "kimi-k2": "moonshotai-Kimi-K2",
    "gpt-oss": "openai-gpt-oss-120b",
}


def judge(source: str, messages: list[dict[str, Any]], **options: Any) -> str | None:
    """What `transformers` writes; None where it fails, as a template can in any way."""
    from transformers.utils import chat_template_utils as hf

    normalized = [hf._normalize_chat_messages(messages)]
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    try:
        return str(hf.render_jinja_template(normalized, chat_template=source, **tokens, **options)[0][0])
    except Exception:  # noqa: BLE001
        return None


def ours(source: str, messages: Any, **options: Any) -> str | None:
    """What sotol writes; None where the template fails or refuses."""
    try:
        return ChatTemplate({"default": source}, bos="<s>", eos="</s>").render(messages, **options)
    except TemplateError:
        return None


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_text_equals_transformers(path: Path, conversation: str) -> None:
    """Where it fails, or loses a call, ours may find the form in which the template takes the conversation."""
    source = path.read_text(encoding="utf-8")
    messages, chosen = CONVERSATIONS[conversation]
    options = {"add_generation_prompt": True, **chosen}
    own = Habits(source).told(options, CompiledTemplate(source, RenderLimits()).variables)  # as the template names it
    expected, text = judge(source, messages, **own), ours(source, messages, **options)
    calls = conversation in ("calls", "results")
    if expected is not None and (not calls or "Paris" in expected) and (conversation != "image" or "it?" in expected):
        assert text == expected
    elif text is not None and not calls and conversation != "image":
        assert messages[-1]["content"].strip() in text


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_all_forms_give_one_prompt(path: Path, name: str) -> None:
    source = path.read_text(encoding="utf-8")
    first, *others = [ours(source, messages, tools=[TOOL] if name == "call" else None) for messages in FORMS[name]]
    assert others == [first] * len(others)
    assert ours(source, FORMS[name][0], tools=[]) == ours(source, FORMS[name][0])


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_a_developer_is_system_where_the_template_does_not_know_the_role(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    system, developer = (ours(source, [said(role, "S"), said("user", "Hi")]) for role in ("system", "developer"))
    if re.search(r"""['"]developer['"]""", source) is None:
        assert developer == system
    assert (developer is None) == (system is None)
    assert developer is None or "S" in developer


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_parts_are_text_or_what_the_template_makes_of_them(path: Path) -> None:
    """A template that takes one part for its text is given all parts; any other is given their text."""
    source = path.read_text(encoding="utf-8")
    one, two = ([{"type": "text", "text": t} for t in texts] for texts in (("onetwo",), ("one", "two")))
    text, as_part, as_parts = (judge(source, [said("user", content)]) for content in ("onetwo", one, two))
    expected = as_parts if as_part == text else text
    if expected is not None:
        assert ours(source, [said("user", two)], add_generation_prompt=False) == expected


LOOKS_SPECIAL = re.compile(
    r"<\|[^|<>\s]+\|>|<\uff5c[^\uff5c<>\s]+\uff5c>|\[/?[A-Z_]{3,}\]|</?[a-zA-Z_:]+>|\]~b\]|\[e~\[|<\|[^|<>\s]+>|<[^|<>\s]+\|>"
)
NAMES = {
    "<city>",
    "</city>",
    "<required>",
    "</required>",
    "<the>",
}  # of the tool, in brackets of the template's or ours


@pytest.mark.parametrize("conversation", CONVERSATIONS.keys() - {"turns"})  # where a user writes tags
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_all_control_tokens_of_the_template_are_found(path: Path, conversation: str) -> None:
    messages, chosen = CONVERSATIONS[conversation]
    text = ours(path.read_text(encoding="utf-8"), messages, **{"add_generation_prompt": True, **chosen})
    if text is None:
        return
    special = sorted(set(LOOKS_SPECIAL.findall(text)) - NAMES)
    fields = {"model": "gpt2", "pre": "gpt-2", "tokens": [*BYTE_OF_CHARACTER, *special], "merges": ["a b"],
              "token_type": [1] * len(BYTE_OF_CHARACTER) + [3] * len(special)}  # fmt: skip
    tokenizer = Tokenizer.from_metadata({f"tokenizer.ggml.{key}": value for key, value in fields.items()})
    assert tokenizer.encode(text, special=True) == tokenizer.encode(unmarked(text), special=True)


@pytest.mark.parametrize("generate", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_equal_a_template_of_the_family(preset: str, generate: bool) -> None:
    source = (FOLDER / f"{PRESETS[preset]}.jinja").read_text(encoding="utf-8")
    turns = [said("system", "Be kind."), said("user", " Hi\n"), said("assistant", "Hello. "), said("user", "Go on")]
    for messages in (turns, turns[:2]):
        official, ours = (
            ChatTemplate(which, bos="<s>", eos="</s>").render(messages, add_generation_prompt=generate)
            for which in ({"default": source}, preset)
        )
        assert ours == re.sub(r"Current date: [\d-]+\n", "", unmarked(official))


@pytest.mark.parametrize("generate", [True, False])
def test_gemma_equals_gemma_2_without_a_system_message(generate: bool) -> None:
    source = (FOLDER / "google-gemma-2-2b-it.jinja").read_text(encoding="utf-8")
    messages = [said("user", " Hi\n"), said("assistant", "Hello. "), said("user", "Go on")]
    official, ours = (
        ChatTemplate(which, bos="<s>").render(messages, add_generation_prompt=generate)
        for which in ({"default": source}, "gemma")
    )
    assert ours == official


def test_deepseek_equals_the_distilled_r1_up_to_its_open_thought() -> None:
    source = (FOLDER / "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja").read_text(encoding="utf-8")
    messages = [said("system", "S"), said("user", "Hi"), said("assistant", "Hello."), said("user", "Go on")]
    official, ours = (
        ChatTemplate(which, bos="<s>").render(messages, add_generation_prompt=False)
        for which in ({"default": source}, "deepseek3")
    )
    assert ours == official
