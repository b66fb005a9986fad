"""Chat formats for models whose file has no template: a table of the markers around each message.

Each row reproduces what the official template of the family writes for a plain conversation; its name is llama.cpp's if
llama.cpp has one. `{bos}` and `{eos}` in a marker stand for the model's own tokens.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

__all__ = ["PRESETS", "Preset", "preset_for"]


class Preset(NamedTuple):
    """One format. A role that isn't in `turns` is refused.

    tokens, architectures: the format is used for vocabularies that have all of these tokens, of one of these
        architectures if any are named.
    turns: role -> (text before, text after) the message.
    generate: the text that opens the answer; close: the text after a conversation that asks for no answer.
    system_in_user: (before, after) of a first system message, for formats without a turn for it: it goes into the
        first user message, or into the last one with `system_in_last`.
    strip: where white space is stripped: around each "message", or around the whole "turn" with its system message.
    """

    tokens: tuple[str, ...]
    turns: dict[str, tuple[str, str]]
    generate: str
    begin: str = ""
    close: str = ""
    system_in_user: tuple[str, str] | None = None
    system_in_last: bool = False
    strip: Literal["nothing", "message", "turn"] = "nothing"
    architectures: tuple[str, ...] = ()


def _same(before: str, after: str, *roles: str) -> dict[str, tuple[str, str]]:
    """Turns that differ only in the name of the role."""
    return {role: (before.replace("ROLE", role), after) for role in roles}


# Tried in this order: formats with rarer markers come first.
PRESETS: dict[str, Preset] = {
    "chatml": Preset(  # OpenAI 2023; Qwen, SmolLM, Yi, …
        tokens=("<|im_start|>", "<|im_end|>"),
        turns=_same("<|im_start|>ROLE\n", "<|im_end|>\n", "system", "user", "assistant"),
        generate="<|im_start|>assistant\n",
    ),
    "llama3": Preset(
        tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        begin="{bos}",
        turns=_same("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>", "system", "user", "assistant"),
        generate="<|start_header_id|>assistant<|end_header_id|>\n\n",
        strip="message",
    ),
    "gemma": Preset(
        tokens=("<start_of_turn>", "<end_of_turn>"),
        begin="{bos}",
        turns={
            "user": ("<start_of_turn>user\n", "<end_of_turn>\n"),
            "assistant": ("<start_of_turn>model\n", "<end_of_turn>\n"),
        },
        generate="<start_of_turn>model\n",
        system_in_user=("", "\n\n"),
        strip="message",
    ),
    "command-r": Preset(
        tokens=("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        begin="{bos}",
        turns={
            "system": ("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
            "user": ("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
            "assistant": ("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        },
        generate="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        strip="message",
    ),
    "granite": Preset(
        tokens=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
        turns=_same("<|start_of_role|>ROLE<|end_of_role|>", "<|end_of_text|>\n", "system", "user", "assistant"),
        generate="<|start_of_role|>assistant<|end_of_role|>",
    ),
    "deepseek3": Preset(
        tokens=("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),  # noqa: RUF001  # these are its characters
        begin="{bos}",
        turns={
            "system": ("", ""),
            "user": ("<｜User｜>", ""),  # noqa: RUF001
            "assistant": ("<｜Assistant｜>", "<｜end▁of▁sentence｜>"),  # noqa: RUF001
        },
        generate="<｜Assistant｜>",  # noqa: RUF001
    ),
    "phi3": Preset(
        tokens=("<|user|>", "<|assistant|>", "<|end|>"),
        turns=_same("<|ROLE|>\n", "<|end|>\n", "system", "user", "assistant"),
        generate="<|assistant|>\n",
        close="{eos}",
    ),
    "zephyr": Preset(
        tokens=("<|user|>", "<|assistant|>"),
        turns=_same("<|ROLE|>\n", "{eos}\n", "system", "user", "assistant"),
        generate="<|assistant|>\n",
    ),
    "mistral-v7": Preset(
        tokens=("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]"),
        begin="{bos}",
        turns={
            "system": ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
            "user": ("[INST]", "[/INST]"),
            "assistant": ("", "{eos}"),
        },
        generate="",
    ),
    "mistral-v3": Preset(
        tokens=("[INST]", "[/INST]", "<0x0A>"),  # a SentencePiece vocabulary
        begin="{bos}",
        turns={"user": ("[INST] ", "[/INST]"), "assistant": (" ", "{eos}")},
        generate="",
        system_in_user=("", "\n\n"),
        system_in_last=True,
    ),
    "mistral-v3-tekken": Preset(
        tokens=("[INST]", "[/INST]"),
        begin="{bos}",
        turns={"user": ("[INST]", "[/INST]"), "assistant": ("", "{eos}")},
        generate="",
        system_in_user=("", "\n\n"),
        system_in_last=True,
    ),
    "llama2": Preset(  # no tokens of its own: a SentencePiece vocabulary of a llama without any of the above
        tokens=("<s>", "</s>", "<0x0A>"),
        architectures=("llama",),
        turns={"user": ("{bos}[INST] ", " [/INST]"), "assistant": (" ", " {eos}")},
        generate="",
        system_in_user=("<<SYS>>\n", "\n<</SYS>>\n\n"),
        strip="turn",
    ),
}


def preset_for(architecture: str, has_token: Callable[[str], bool]) -> str:
    """The name of the first format whose tokens are all in the vocabulary, or else chatml, as in llama.cpp."""
    for name, preset in PRESETS.items():
        if preset.architectures and architecture not in preset.architectures:
            continue
        if all(has_token(token) for token in preset.tokens):
            return name
    return "chatml"
