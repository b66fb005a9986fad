"""llama.cpp's collection of real chat templates: the format of each is found, and reads what the template writes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.support.answers import DESCRIBED, TOOLS, read

from sotol.answers.finding import find_format
from sotol.tokenizers.chat import ChatTemplate

FOLDER = Path(os.environ.get("SOTOL_PARITY", "")) / "templates"
if not os.environ.get("SOTOL_PARITY") or not list(FOLDER.glob("*.jinja")):
    pytest.skip("no templates: SOTOL_PARITY names no folder with templates/*.jinja", allow_module_level=True)

# Beginnings of names of templates, of those whose models have tools and a format that is known.
FORMAT_OF = {
    "Apertus": "apertus", "GigaChat3-": "gigachat3", "GigaChat3.1": "gigachat3.1", "Kimi-K3": "kimi-k3",
    "MiniMax-M3": "minimax-m3", "deepseek-ai-DeepSeek-V3.2": "deepseek-v3.2", "deepseek-ai-DeepSeek-V4": "deepseek-v4",
    "google-gemma-4": "gemma4", "meetkai-functionary-medium-v3.2": "functionary-v3.2", "muse-glimmer": "muse",
    "openai-gpt-oss": "harmony", "openbmb-MiniCPM5": "minicpm5", "tencent-Hy3": "hy3", "upstage-Solar": "solar-open",
    "Apriel": "apriel", "unsloth-Apriel": "apriel",
    "Bielik": "hermes", "MiMo": "hermes", "NousResearch-Hermes": "hermes", "Qwen-QwQ": "hermes", "Qwen-Qwen": "hermes",
    "Reka-Edge": "hermes", "ibm-granite-granite-4": "hermes",
    "ByteDance-Seed-OSS": "seed-oss",
    "Cohere2MoE": "command-r7b", "CohereForAI-c4ai-command-r7b": "command-r7b",
    "CohereForAI-c4ai-command-r-plus": "command-r",
    "GLM": "glm", "Spark2.5": "glm", "inclusionai-ling": "glm", "poolside-Laguna": "glm",
    "Kimi-K2": "kimi-k2", "moonshotai-Kimi-K2": "kimi-k2",
    "LFM2": "lfm2",
    "MiniMax-M1": "minimax-m1", "MiniMax-M2": "minimax-m2",
    "Mistral-Small-3.2": "mistral-v11", "mistralai-Ministral-3": "mistral-v11",
    "unsloth-mistral-Devstral": "mistral-v11",
    "mistralai-Mistral-Nemo": "mistral",
    "NVIDIA-Nemotron-3-Nano": "qwen3-coder", "Qwen3": "qwen3-coder", "StepFun3.5": "qwen3-coder",
    "NVIDIA-Nemotron-Nano-v2": "nemotron",
    "deepseek-ai-DeepSeek-R1": "deepseek", "llama-cpp-deepseek-r1": "deepseek",
    "deepseek-ai-DeepSeek-V3.1": "deepseek-v3.1",
    "fireworks-ai-llama-3-firefunction": "firefunction",
    "google-gemma-2": "gemma",
    "ibm-granite-granite-3": "granite3",
    "meetkai-functionary-medium-v3.1": "functionary-v3.1",
    "meta-llama": "llama3",
}  # fmt: skip
# Those that write no calls of a conversation, or only with variables of their own, or not after what was said.
SILENT = (
    "CohereForAI-c4ai-command-r-plus", "LFM2-8B", "LFM2.5-Instruct",
    "deepseek-ai-DeepSeek-R1-Distill-Llama", "fireworks-ai", "google-gemma-2", "ibm-granite-granite-3", "llama-cpp",
)  # fmt: skip
USER = {"role": "user", "content": "The question."}


def of(path: Path) -> str:
    """The format that a template should have; the longest beginning counts."""
    fitting = [beginning for beginning in FORMAT_OF if path.name.startswith(beginning)]
    return FORMAT_OF[max(fitting, key=len)] if fitting else "text"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jinja")), ids=lambda path: path.stem)
def test_the_format_is_found(path: Path) -> None:
    assert find_format(path.read_text(encoding="utf-8")).name == of(path)


def calls(*wanted: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"id": f"abcdefgh{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(wanted)
    ]


KNOWN = [path for path in sorted(FOLDER.glob("*.jinja")) if of(path) != "text" and not path.name.startswith(SILENT)]


@pytest.mark.parametrize("path", KNOWN, ids=lambda path: path.stem)
def test_what_a_template_writes_is_read(path: Path) -> None:
    """The calls of an earlier answer come back as they were; of several, if the template allows that."""
    source = path.read_text(encoding="utf-8")
    template = ChatTemplate({"default": source}, bos="<BOS>", eos="<EOS>", seconds=60)
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("get_weather", {"city": 'Rome\n "x"', "days": 2, "tags": ["a"]}),
        ("get_weather", {"city": "Oslo"}),
    ]
    if of(path) in ("llama3", "harmony", "gigachat3", "gigachat3.1"):  # a call at a time
        wanted = wanted[:1]
    answer = {"role": "assistant", "content": "Said.", "tool_calls": calls(*wanted)}
    before = template.render([USER], tools=DESCRIBED, add_generation_prompt=False)
    text = template.render([USER, answer], tools=DESCRIBED, add_generation_prompt=False)
    assert text.startswith(before.rstrip())
    found = read(find_format(source), [text[len(before.rstrip()) :]], tools=TOOLS)
    assert [(call.name, json.loads(call.arguments)) for call in found.calls] == wanted


THINKING = [
    path for path in KNOWN
    if find_format(path.read_text(encoding="utf-8")).thinking
    and not path.name.startswith("Apriel")  # earlier thoughts have no opening marker there
]  # fmt: skip


@pytest.mark.parametrize("path", THINKING, ids=lambda path: path.stem)
def test_thoughts_that_a_template_writes_are_read(path: Path) -> None:
    """Those of an answer with calls, which many templates keep until the tools have answered."""
    source = path.read_text(encoding="utf-8")
    template = ChatTemplate({"default": source}, bos="<BOS>", eos="<EOS>", seconds=60)
    wanted = calls(("get_weather", {"city": "Oslo"}))
    answer = {"role": "assistant", "content": "", "reasoning_content": "Because.", "tool_calls": wanted}
    options: dict[str, Any] = {"tools": DESCRIBED, "enable_thinking": True, "thinking": True}
    before = template.render([USER], **options)
    text = template.render([USER, answer], **options, add_generation_prompt=False)
    differ = (i for i, (a, b) in enumerate(zip(before, text, strict=False)) if a != b)
    row, shared = find_format(source), next(differ, len(before))
    opened = any(before[:shared].rstrip().endswith(pair.open) for pair in row.thinking)
    found = read(row, [text[shared:]], tools=TOOLS, thinking=opened)
    assert found.reasoning == ("Because." if "Because." in text[shared:] else "")


SWITCHED = ("ibm-granite-granite-3.3", "Kimi-K3", "MiniMax-M3", "tencent-Hy3", "Qwen3.5", "deepseek-ai-DeepSeek-V3.1")


@pytest.mark.parametrize("name", SWITCHED)
def test_thinking_is_switched_in_templates_that_call_it_otherwise(name: str) -> None:
    (path,) = FOLDER.glob(f"{name}*.jinja")
    template = ChatTemplate({"default": path.read_text(encoding="utf-8")}, bos="<BOS>", eos="<EOS>")
    on, off = (template.render([USER], enable_thinking=enabled) for enabled in (True, False))
    assert on != off
