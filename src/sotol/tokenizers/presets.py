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
    efforts: how much the model may be told to think; `{effort}` in `begin` is the one that is asked for.
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
    efforts: frozenset[str] = frozenset()


def _same(before: str, after: str, *roles: str) -> dict[str, tuple[str, str]]:
    """Turns that differ only in the name of the role."""
    return {role: (before.replace("ROLE", role), after) for role in roles}


# What gpt-oss's template says to the model, but for the date, which a preset does not know.
GPT_OSS_SYSTEM = (
    "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n\nReasoning: {effort}\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message."
)

# Tried in this order: formats with rarer markers come first.
PRESETS: dict[str, Preset] = {
    "gpt-oss": Preset(  # the first message of the system is the developer's here
        tokens=("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"),
        begin=f"<|start|>system<|message|>{GPT_OSS_SYSTEM}<|end|>",
        turns={
            "system": ("<|start|>developer<|message|># Instructions\n\n", "\n\n<|end|>"),
            "user": ("<|start|>user<|message|>", "<|end|>"),
            "assistant": ("<|start|>assistant<|channel|>final<|message|>", "<|end|>"),
        },
        generate="<|start|>assistant",
        efforts=frozenset({"low", "medium", "high"}),
    ),
    "gemma4": Preset(  # without thinking, as its template is unless it is asked for
        tokens=("<|turn>", "<turn|>", "<|channel>"),
        begin="{bos}",
        turns={
            "system": ("<|turn>system\n", "<turn|>\n"),
            "user": ("<|turn>user\n", "<turn|>\n"),
            "assistant": ("<|turn>model\n", "<turn|>\n"),
        },
        generate="<|turn>model\n<|channel>thought\n<channel|>",
        strip="message",
    ),
    "llama4": Preset(
        tokens=("<|header_start|>", "<|header_end|>", "<|eot|>"),
        begin="{bos}",
        turns=_same("<|header_start|>ROLE<|header_end|>\n\n", "<|eot|>", "system", "user", "assistant"),
        generate="<|header_start|>assistant<|header_end|>\n\n",
        strip="message",
    ),
    "phi4": Preset(
        tokens=("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        turns=_same("<|im_start|>ROLE<|im_sep|>", "<|im_end|>", "system", "user", "assistant"),
        generate="<|im_start|>assistant<|im_sep|>",
    ),
    "kimi-k2": Preset(
        tokens=("<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>"),
        turns=_same("<|im_ROLE|>ROLE<|im_middle|>", "<|im_end|>", "system", "user", "assistant"),
        generate="<|im_assistant|>assistant<|im_middle|>",
    ),
    "seed_oss": Preset(
        tokens=("<seed:bos>", "<seed:eos>"),
        turns=_same("<seed:bos>ROLE\n", "<seed:eos>", "system", "user", "assistant"),
        generate="<seed:bos>assistant\n",
    ),
    "solar-open": Preset(
        tokens=("<|begin|>", "<|content|>", "<|end|>", "<|calls|>"),
        turns=_same("<|begin|>ROLE<|content|>", "<|end|>", "system", "user", "assistant"),
        generate="<|begin|>assistant",
    ),
    "chatglm4": Preset(
        tokens=("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
        begin="[gMASK]<sop>",
        turns=_same("<|ROLE|>\n", "", "system", "user", "assistant"),
        generate="<|assistant|>\n",
    ),
    "exaone4": Preset(
        tokens=("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]"),
        turns={
            "system": ("[|system|]", "[|endofturn|]\n"),
            "user": ("[|user|]", "\n"),
            "assistant": ("[|assistant|]", "[|endofturn|]\n"),
        },
        generate="[|assistant|]",
        strip="message",
    ),
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
