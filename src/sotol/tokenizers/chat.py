"""Chat templates: a conversation -> text in the format that the model was trained on.

Messages are first normalised (`messages.py`). A model's own Jinja template is rendered as Hugging Face `transformers`
does it, in a sandbox with limits (`sandbox.py`), from messages in the form that it expects (`habits.py`). A file
without a template gets a preset (`presets.py`). The result records for each character whether the template wrote it or
somebody else (`provenance.py`). Knows nothing of token ids.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from sotol.errors import TemplateError, plain
from sotol.tokenizers.effort import LEVELS, level_among
from sotol.tokenizers.messages import all_text, normalized, normalized_tools, plain_data
from sotol.tokenizers.presets import PRESETS, Preset, preset_for
from sotol.tokenizers.provenance import joined, trusted

if TYPE_CHECKING:
    from sotol.tokenizers.habits import Habits
    from sotol.tokenizers.metering import Meter
    from sotol.tokenizers.sandbox import CompiledTemplate

__all__ = ["ChatTemplate"]

KEY = "tokenizer.chat_template"  # a key of GGUF's metadata; further templates have keys such as KEY + ".tool_use"

DEFAULT_LEVEL = "medium"  # of effort, where a preset tells the model one: gpt-oss's template has it so

# Special tokens that templates know by name, as transformers has them (SPECIAL_TOKENS_ATTRIBUTES), besides bos_token
# and eos_token -> the fields of GGUF's metadata with their ids. "seperator" is how the specification spells it.
# tokenizer_config.json has their texts by the same names.
TOKEN_FIELDS = {
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}


class ChatTemplate:
    """A model's chat format. `source` says where it comes from: "model", or the name of a preset."""

    def __init__(
        self, templates: Mapping[str, str] | str, *, bos: str = "", eos: str = "",
        special: Mapping[str, str] | None = None, seconds: float = 2.0, characters: int = 4_000_000,
    ) -> None:  # fmt: skip
        """From Jinja sources by name ("default", "tool_use", …), or from the name of a preset.

        special: texts of further special tokens by their name in templates (unk_token, …). One rendering may take
        `seconds` and write `characters`. Raises ValueError for an unknown preset.
        """
        if isinstance(templates, str) and templates not in PRESETS:
            raise ValueError(
                f"unknown chat format {plain(repr(templates), 60)}; the built-in ones are {', '.join(PRESETS)}"
            )
        self.source = templates if isinstance(templates, str) else "model"
        self._sources = {} if isinstance(templates, str) else dict(templates)
        texts = {**(special or {}), "bos_token": bos, "eos_token": eos}
        self._tokens = {name: trusted(text) for name, text in texts.items()}
        self._limits = (seconds, characters)
        self._compiled: dict[str, tuple[CompiledTemplate, Habits]] = {}

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, object], *, bos: str, eos: str, architecture: str, tokens: Callable[[str], bool],
        text_of: Callable[[int], str] | None = None, seconds: float = 2.0, characters: int = 4_000_000,
    ) -> "ChatTemplate":  # fmt: skip
        """The templates of a model's metadata; without any, the preset that fits its special tokens.

        tokens(text): whether the vocabulary has a token. text_of(id): its text, ValueError for an unknown id; with it,
        templates can use the file's other special tokens. TemplateError for a template that isn't text.
        """
        sources: dict[str, str] = {}
        for key, value in metadata.items():
            if key == KEY or key.startswith(KEY + "."):
                if not isinstance(value, str):
                    raise TemplateError(f"the file's {plain(key, 60)} is not text; give another chat template")
                sources[key.removeprefix(KEY).removeprefix(".") or "default"] = value
        chosen = sources or preset_for(architecture, tokens)
        special = {} if text_of is None else _special_tokens(metadata, text_of)
        return cls(chosen, bos=bos, eos=eos, special=special, seconds=seconds, characters=characters)

    @property
    def written(self) -> str:
        """The Jinja sources, all of them; "" for a preset."""
        return "\n".join(self._sources.values())

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        **extra: object,
    ) -> str:
        """The conversation as text; `extra` are further variables of the model's template (enable_thinking=False, …).

        `enable_thinking` and levels of `reasoning_effort` are told by the names and the levels that the template has.

        ValueError for malformed messages or tools; TemplateError if the template refuses the conversation, fails, or
        exceeds its limits.
        """
        said, described = normalized(messages), normalized_tools(tools)
        if not self._sources:
            if described:
                raise TemplateError(f"the built-in chat format {self.source!r} can't describe tools to the model")
            effort = extra.get("reasoning_effort")
            return _render_preset(self.source, said, self._tokens, add_generation_prompt, effort)
        template, habits = self._template("tool_use" if described is not None else "default")
        meter = template.meter()
        ask = partial(self._tried, template, meter)
        given = {name: plain_data((name,), value) for name, value in extra.items()}
        if "enable_thinking" in given or "reasoning_effort" in given:
            given = habits.told(given, template.variables)
        variables = {**self._tokens, **given}
        variables |= {"tools": described or habits.no_tools(ask), "add_generation_prompt": bool(add_generation_prompt)}
        variables.setdefault("documents", None)
        return template.render({**variables, "messages": habits.fitted(said, ask)}, meter)

    def _template(self, name: str) -> "tuple[CompiledTemplate, Habits]":
        """The template of that name, else the default one, else the only one."""
        if name not in self._sources:
            name = "default" if "default" in self._sources or len(self._sources) > 1 else next(iter(self._sources))
        if name not in self._sources:
            raise TemplateError(f"the model has no default chat template, only {plain(', '.join(self._sources))}")
        if name not in self._compiled:
            # Importing jinja2 takes a tenth of a second, which programs without chats need not spend.
            from sotol.tokenizers.habits import Habits  # noqa: PLC0415
            from sotol.tokenizers.metering import RenderLimits  # noqa: PLC0415
            from sotol.tokenizers.sandbox import CompiledTemplate  # noqa: PLC0415

            template = CompiledTemplate(self._sources[name], RenderLimits(*self._limits))
            self._compiled[name] = template, Habits(self._sources[name])
        return self._compiled[name]

    def _tried(
        self, template: "CompiledTemplate", meter: "Meter", messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None,
    ) -> str | None:  # fmt: skip
        """A trial rendering; None if the template fails. TemplateError if the limits are exhausted."""
        variables = {**self._tokens, "documents": None, "tools": tools, "add_generation_prompt": True}
        try:
            return template.render({**variables, "messages": messages}, meter)
        except TemplateError:
            if meter.exhausted:
                raise
            return None


def _special_tokens(metadata: Mapping[str, object], text_of: Callable[[int], str]) -> dict[str, str]:
    """The special tokens that the metadata names, by id or by text: variable of templates -> text."""
    texts, config = dict[str, str](), metadata.get("tokenizer_config")
    for name, field in TOKEN_FIELDS.items():
        said = config.get(name) if isinstance(config, Mapping) else None
        said = said.get("content") if isinstance(said, Mapping) else said
        if isinstance(said, str):
            texts[name] = said
        token = metadata.get(f"tokenizer.ggml.{field}")
        if isinstance(token, int):
            with suppress(ValueError):  # some files name ids that they don't have; few templates use the variable
                texts[name] = text_of(token)
    return texts


def _render_preset(
    name: str, messages: Sequence[Mapping[str, Any]], tokens: Mapping[str, str], add_generation_prompt: bool,
    effort: object,
) -> str:  # fmt: skip
    """The text of each message between the markers of a preset."""
    preset = PRESETS[name]
    # Not str.format: text of the conversation must never be taken for a marker.
    level = level_among(str(effort), preset.efforts) if effort in LEVELS else DEFAULT_LEVEL
    fill = {"{bos}": tokens["bos_token"], "{eos}": tokens["eos_token"], "{effort}": level}

    def marker(text: str) -> str:
        whole = str(trusted(text))
        for variable, value in fill.items():
            whole = whole.replace(variable, value)
        return whole

    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    host = users[-1 if preset.system_in_last else 0] if users else None
    out, system = [marker(preset.begin)], ""
    for i, message in enumerate(messages):
        role, text = message["role"], _text(i, message)
        role = "system" if role == "developer" else role
        if role == "system" and preset.system_in_user and i == 0 and users:
            before, after = preset.system_in_user
            system = marker(before) + text + marker(after)
            continue
        if role not in preset.turns:
            raise TemplateError(
                f"the built-in chat format {name!r} has no place for messages[{i}] of role {plain(repr(role), 60)}; "
                f"it has {', '.join(preset.turns)}" + _system_hint(preset)
            )
        if preset.strip == "message":
            text = text.strip()
        if i == host:
            text = system + text
        if preset.strip == "turn":
            text = text.strip()
        before, after = preset.turns[role]
        out.append(marker(before) + text + marker(after))
    out.append(marker(preset.generate if add_generation_prompt else preset.close))
    return joined(out)


def _system_hint(preset: Preset) -> str:
    return ", and a system message before a user's" if preset.system_in_user else ""


def _text(i: int, message: Mapping[str, Any]) -> str:
    """The text of a message; TemplateError if it has other content or calls tools."""
    text = all_text(message["content"])
    if text is None:
        kind = next(part["type"] for part in message["content"] if part["type"] != "text")
        raise TemplateError(
            f"messages[{i}] has a part of type {plain(repr(kind), 60)}; the built-in chat formats take only text"
        )
    if "tool_calls" in message:
        raise TemplateError(f"messages[{i}] calls tools, which the built-in chat formats can't describe to the model")
    return text
