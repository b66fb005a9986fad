"""llama.cpp's collection of real chat templates, each equal to what `transformers` writes, or refused by both."""

import os
from pathlib import Path
from typing import Any

import pytest

from sotol.errors import TemplateError
from sotol.tokenizers.chat import ChatTemplate

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
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "abcdef123", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
    ],
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
    "parts": ([said("user", [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])], {}),
    "tools": ([said("user", "weather?")], {"tools": [TOOL]}),
    "calls": ([said("system", "S"), said("user", "weather?"), CALL, RESULT], {"tools": [TOOL]}),
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
}


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_text_equals_transformers(path: Path, conversation: str) -> None:
    from transformers.utils import chat_template_utils as hf

    source = path.read_text(encoding="utf-8")
    messages, chosen = CONVERSATIONS[conversation]
    options = {"add_generation_prompt": True, **chosen}
    ours = ChatTemplate({"default": source}, bos="<s>", eos="</s>")
    try:
        expected = hf.render_jinja_template(
            [hf._normalize_chat_messages(messages)],
            chat_template=source, bos_token="<s>", eos_token="</s>", **options,
        )[0][0]  # fmt: skip
    except Exception:  # noqa: BLE001  # a template can fail in any way, and then ours has to fail too
        with pytest.raises(TemplateError):
            ours.render(messages, **options)
    else:
        assert ours.render(messages, **options) == expected


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
        assert ours == official


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
