"""Chat templates: a conversation -> the text that the model was trained on.

A model's own Jinja template is rendered as Hugging Face `transformers` does it, in a sandbox with limits
(`sandbox.py`); a file without one gets a preset (`presets.py`). Knows nothing of token ids.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sotol.errors import TemplateError
from sotol.tokenizers.presets import PRESETS, Preset, preset_for

if TYPE_CHECKING:
    from sotol.tokenizers.sandbox import CompiledTemplate

__all__ = ["ChatTemplate"]

KEY = "tokenizer.chat_template"  # of GGUF's metadata; others are named after it: tokenizer.chat_template.tool_use
REASONING = ("reasoning_content", "thinking", "reasoning")  # names of one thing in messages, the standard one first
DEEPEST = 64  # levels of lists and objects in what the caller gives


class ChatTemplate:
    """A model's chat format. `source` says where it comes from: "model", or the name of a preset."""

    def __init__(
        self, templates: Mapping[str, str] | str, *, bos: str = "", eos: str = "", seconds: float = 2.0,
        characters: int = 4_000_000,
    ) -> None:  # fmt: skip
        """From Jinja sources by name ("default", "tool_use", …), or from the name of a preset.

        One rendering may take `seconds` and write `characters`. Raises ValueError for an unknown preset.
        """
        if isinstance(templates, str) and templates not in PRESETS:
            raise ValueError(f"unknown chat format {templates!r}; the built-in ones are {', '.join(PRESETS)}")
        self.source = templates if isinstance(templates, str) else "model"
        self._sources = {} if isinstance(templates, str) else dict(templates)
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self._limits = (seconds, characters)
        self._compiled: dict[str, CompiledTemplate] = {}

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, object], *, bos: str, eos: str, architecture: str, tokens: Callable[[str], bool],
        seconds: float = 2.0, characters: int = 4_000_000,
    ) -> "ChatTemplate":  # fmt: skip
        """The templates of a GGUF file; without one, the preset that fits its special tokens.

        `tokens` tells whether the vocabulary has a token. Raises TemplateError for a template that isn't text.
        """
        sources: dict[str, str] = {}
        for key, value in metadata.items():
            if key == KEY or key.startswith(KEY + "."):
                if not isinstance(value, str):
                    raise TemplateError(f"the file's {key} is not text; give another chat template")
                sources[key.removeprefix(KEY).removeprefix(".") or "default"] = value
        chosen = sources or preset_for(architecture, tokens)
        return cls(chosen, bos=bos, eos=eos, seconds=seconds, characters=characters)

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        **extra: object,
    ) -> str:
        """The conversation as text; `extra` are further variables of the model's template (enable_thinking=False, …).

        Raises ValueError for messages or tools of a wrong form, TemplateError where the template refuses, fails or
        goes beyond its limits.
        """
        checked = [_message(i, message) for i, message in enumerate(_sequence("messages", messages))]
        described = None if tools is None else [_tool(i, t) for i, t in enumerate(_sequence("tools", tools))]
        if not self._sources:
            if described:
                raise TemplateError(f"the built-in chat format {self.source!r} can't describe tools to the model")
            return _render_preset(self.source, checked, self._tokens, add_generation_prompt)
        variables = {**self._tokens, **{name: _plain(name, value) for name, value in extra.items()}}
        variables |= {"messages": checked, "tools": described, "add_generation_prompt": add_generation_prompt}
        variables.setdefault("documents", None)
        return self._template("tool_use" if described is not None else "default").render(variables)

    def _template(self, name: str) -> "CompiledTemplate":
        """The template of that name; else the default, or the only one."""
        if name not in self._sources:
            name = "default" if "default" in self._sources or len(self._sources) > 1 else next(iter(self._sources))
        if name not in self._sources:
            raise TemplateError(f"the model has no default chat template, only {', '.join(self._sources)}")
        if name not in self._compiled:
            # jinja2 takes a tenth of a second to import, and a program that only generates does not need it
            from sotol.tokenizers.sandbox import CompiledTemplate, Limits  # noqa: PLC0415

            self._compiled[name] = CompiledTemplate(self._sources[name], Limits(*self._limits))
        return self._compiled[name]


def _render_preset(
    name: str, messages: Sequence[Mapping[str, Any]], tokens: Mapping[str, str], add_generation_prompt: bool
) -> str:
    """Markers from the table around the text of each message."""
    preset = PRESETS[name]
    # not str.format: text from the conversation must never be taken for a marker
    fill = {"{bos}": tokens["bos_token"], "{eos}": tokens["eos_token"]}

    def marker(text: str) -> str:
        for variable, value in fill.items():
            text = text.replace(variable, value)
        return text

    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    host = users[-1 if preset.system_in_last else 0] if users else None
    out, system = [marker(preset.begin)], ""
    for i, message in enumerate(messages):
        role, text = message["role"], _text(i, message.get("content"))
        if role == "system" and preset.system_in_user and i == 0 and users:
            before, after = preset.system_in_user
            system = before + text + after
            continue
        if role not in preset.turns:
            raise TemplateError(
                f"the built-in chat format {name!r} has no place for messages[{i}] of role {role!r}; "
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
    return "".join(out)


def _system_hint(preset: Preset) -> str:
    return ", and a system message before a user's" if preset.system_in_user else ""


def _message(i: int, message: object) -> dict[str, Any]:
    """A checked message as plain data: no None, and reasoning under its standard name and gpt-oss's too."""
    if not isinstance(message, Mapping):
        raise ValueError(f"messages[{i}] is {_kind(message)}; it must be a mapping with role and content")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise ValueError(f"messages[{i}]['role'] is {role!r}; it must be a string such as 'user'")
    if content is not None and not isinstance(content, (str, list, tuple)):
        raise ValueError(f"messages[{i}]['content'] is {_kind(content)}; it must be a string, a list of parts or None")
    for j, part in enumerate(() if isinstance(content, str) or content is None else content):
        if not isinstance(part, Mapping) or not isinstance(part.get("type", ""), str):
            raise ValueError(f"messages[{i}]['content'][{j}] is {_kind(part)}; it must be a mapping with a type")
    plain: dict[str, Any] = {k: v for k, v in _plain(f"messages[{i}]", message).items() if v is not None}
    reasoning = next((plain[name] for name in REASONING if name in plain), None)
    return plain if reasoning is None else {"thinking": reasoning, **plain, "reasoning_content": reasoning}


def _tool(i: int, tool: object) -> Any:
    if not isinstance(tool, Mapping):
        raise ValueError(f"tools[{i}] is {_kind(tool)}; it must be a mapping, a JSON schema of the tool")
    return _plain(f"tools[{i}]", tool)


def _sequence(name: str, value: object) -> Sequence[object]:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise ValueError(f"{name} is {_kind(value)}; it must be a list of mappings")
    return value


def _plain(where: str, value: object, depth: int = 0) -> Any:
    """A copy of JSON-like data in exact built-in types, so that a template can reach nothing else."""
    if depth > DEEPEST:
        raise ValueError(f"{where} is nested more than {DEEPEST} levels deep")
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, Mapping):
        return {_plain(where, k, depth + 1): _plain(f"{where}[{k!r}]", v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(f"{where}[{j}]", item, depth + 1) for j, item in enumerate(value)]
    raise ValueError(f"{where} is {_kind(value)}; chat templates take only text, numbers, lists and mappings")


def _text(i: int, content: object) -> str:
    """The text of a message's content; parts that are not text are refused."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content if isinstance(content, list) else ():
        if not isinstance(part.get("text"), str):
            kind = part.get("type")
            raise TemplateError(f"messages[{i}] has a part of type {kind!r}; the built-in chat formats take only text")
        texts.append(part["text"])
    return "".join(texts)


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
