"""Finds out which form of messages a chat template expects, and converts messages to it.

Templates differ in ways that no file declares: content as text, as parts or both; arguments of a call as an object or
as JSON text; Mistral's refuse call ids that are not nine characters long. So sotol tries: it renders a small
conversation in one form and in another, and checks the output. llama.cpp does the same ("capabilities",
common/jinja/caps.cpp). Each trial is made once, and only when a conversation depends on its outcome.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import product
from typing import Any, NamedTuple

from sotol.tokenizers.effort import with_effort
from sotol.tokenizers.messages import REASONING, ROLES, all_text

__all__ = ["Habits"]

Message = Mapping[str, Any]
Render = Callable[[Sequence[Message], Sequence[Message] | None], str | None]  # (messages, tools); None: it failed

SAID, NAME, KEY, VALUE = "q7Said", "q7_name", "q7Key", "q7Value"  # words that no template contains
TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "d",
        "parameters": {"type": "object", "properties": {KEY: {"type": "string", "description": "d"}}, "required": []},
    },
}
# Other names of `enable_thinking`, what they say where it is true and where it is false, and what a template that has
# them says, too: Granite 3 and Kimi K3, MiniMax-M3, Hunyuan 3.
SWITCHES: tuple[tuple[str, Any, Any, str], ...] = (
    ("thinking", True, False, ""),
    ("thinking_mode", "enabled", "disabled", ""),
    ("reasoning_effort", "high", "no_think", "'no_think'"),
)
LONG_ID, SHORT_ID = "call_q7q7q7q7q7q7", "q7q7q7q7q"


class Calls(NamedTuple):
    """The form in which a template expects tool calls."""

    as_text: bool = False  # arguments as JSON text, not as an object
    without: Any = ""  # content of a call without text: "" or None
    short_ids: bool = False  # ids of nine letters and digits


class Habits:
    """What one template expects. Methods use `render` for trial renderings and remember the outcome."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._names_developer = re.search(r"""(["'])developer\1""", source) is not None
        self._answers: dict[str, Any] = {}

    def no_tools(self, render: Render) -> list[Message] | None:
        """How to pass no tools: None, or [] if the template fails without a list."""
        tools: list[Message] | None = self._answer("no tools", lambda: _no_tools(render, self._plainest(render)))
        return tools

    def told(self, given: Mapping[str, Any], variables: Set[str]) -> dict[str, Any]:
        """What a caller gives the template besides: whether and how much to think by the names that this one has.

        variables: those that the template has.
        """
        known = [switch for switch in SWITCHES if switch[0] in variables and switch[3] in self._source]
        named = "enable_thinking" in variables
        switch = named or any(name != "reasoning_effort" for name, *_ in known)
        told = with_effort(given, variables, self._source, switch=switch)
        if named or "enable_thinking" not in told:
            return told
        on = bool(told["enable_thinking"])
        return {**{name: yes if on else no for name, yes, no, _ in known}, **told}

    def fitted(self, messages: Sequence[Message], render: Render) -> list[dict[str, Any]]:
        """Normalised messages (`messages.py`) in the form that this template expects."""
        result = [self._with_content(message, render) for message in messages]
        if any("tool_calls" in message for message in messages):
            form: Calls = self._answer("calls", lambda: _form_of_calls(render))
            for message in result:
                if "tool_calls" in message:
                    message["content"] = message["content"] or form.without
                    message["tool_calls"] = [_with_arguments(c, as_text=form.as_text) for c in message["tool_calls"]]
                    if message["content"] and REASONING[0] in message and self._thinks_or_says(form, render):
                        _think_all(message, form)
            if form.short_ids:
                _shorten_ids(result)
        return result

    def _with_content(self, message: Message, render: Render) -> dict[str, Any]:
        role, content = message["role"], message["content"]
        if role == "developer" and not self._knows_developer(render):
            role = ROLES["system"]
        text = all_text(content)
        if text is not None:
            if self._answer("parts only", lambda: _wants_parts(render, self._plainest(render))):
                content = _parts(text) if isinstance(content, str) else content
            elif not isinstance(content, str) and not self._reads_parts(role, render):
                content = text
        return {**message, "role": role, "content": content}

    def _knows_developer(self, render: Render) -> bool:
        """Whether it supports developer messages, and does not just write the name of any role."""
        return self._names_developer and bool(
            self._answer("developer", lambda: SAID in (render(*_probe(ROLES["developer"], SAID)) or ""))
        )

    def _reads_parts(self, role: str, render: Render) -> bool:
        """Whether content as one text part renders the same as plain text, for messages of this role."""
        asked = ROLES.get(role, ROLES["user"])
        return bool(self._answer(f"parts of {asked}", lambda: _same_as_part(render, asked)))

    def _thinks_or_says(self, form: Calls, render: Render) -> bool:
        """Whether the template refuses an answer with a call that also says something besides its reasoning."""

        def refused() -> bool:
            user, answer = _called(form)
            thinking = dict.fromkeys(REASONING, SAID)
            return render([user, {**answer, **thinking}], [TOOL]) is not None and (
                render([user, {**answer, **thinking, "content": "c"}], [TOOL]) is None
            )

        return bool(self._answer("thinks or says", refused))

    def _plainest(self, render: Render) -> str | None:
        """A single user message, rendered."""
        text: str | None = self._answer("plainest", lambda: render(*_probe(ROLES["user"], SAID)))
        return text

    def _answer(self, question: str, find: Callable[[], Any]) -> Any:
        """The outcome of a trial, remembered; not if `render` raises, since then the trial is incomplete."""
        if question not in self._answers:
            self._answers[question] = find()
        return self._answers[question]


def _no_tools(render: Render, plainest: str | None) -> list[Message] | None:
    conversation, _ = _probe(ROLES["user"], SAID)
    return [] if plainest is None and render(conversation, []) is not None else None


def _wants_parts(render: Render, plainest: str | None) -> bool:
    return SAID not in (plainest or "") and SAID in (render(*_probe(ROLES["user"], _parts(SAID))) or "")


def _same_as_part(render: Render, role: str) -> bool:
    as_text, as_parts = (render(*_probe(role, content)) for content in (SAID, _parts(SAID)))
    return as_text is not None and SAID in as_text and as_text == as_parts


def _form_of_calls(render: Render) -> Calls:
    """The first form of calls that the template writes out; the most common form if it writes none."""
    for form in (Calls(*choice) for choice in product((False, True), ("", None), (False, True))):
        text = render(_called(form), [TOOL])
        if text is not None and VALUE in text and not _is_garbled(text):
            return form
    return Calls()


def _parts(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]


def _probe(role: str, content: Any) -> tuple[list[Message], list[Message] | None]:
    """A conversation in which that role has this content, and its tools."""
    said = {"role": role, "content": content}
    user = {"role": ROLES["user"], "content": "u"}
    if role == "tool":
        return [*_called(Calls()), {**said, "name": NAME, "tool_call_id": LONG_ID}], [TOOL]
    return [said] if role == "user" else [user, said, user] if role == "assistant" else [said, user], None


def _called(form: Calls) -> list[Message]:
    """A conversation with a tool call in that form."""
    arguments = {KEY: VALUE}
    function = {"name": NAME, "arguments": json.dumps(arguments) if form.as_text else arguments}
    call = {"type": "function", "id": SHORT_ID if form.short_ids else LONG_ID, "function": function}
    return [
        {"role": ROLES["user"], "content": "u"},
        {"role": ROLES["assistant"], "content": form.without, "tool_calls": [call]},
    ]


def _is_garbled(text: str) -> bool:
    """Whether the arguments were written as a Python dict, or as JSON within JSON."""
    return f"{{'{KEY}'" in text or f'\\"{KEY}\\"' in text


def _with_arguments(call: Message, *, as_text: bool) -> dict[str, Any]:
    """The call with its arguments as JSON text or as an object; text that is not a JSON object is left unchanged."""
    function = call.get("function")
    if function is None:
        return dict(call)
    arguments = function["arguments"]
    if as_text and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif not as_text and isinstance(arguments, str):
        try:
            read = json.loads(arguments)
        except (ValueError, RecursionError):
            read = None
        arguments = read if isinstance(read, dict) else arguments
    return {**call, "function": {**function, "arguments": arguments}}


def _think_all(message: dict[str, Any], form: Calls) -> None:
    """Make what a message says the end of its reasoning."""
    if (said := all_text(message["content"])) is not None:
        whole = f"{message[REASONING[0]]}\n\n{said}"
        message.update(dict.fromkeys(REASONING, whole), content=form.without)


def _shorten_ids(messages: Iterable[dict[str, Any]]) -> None:
    """Shorten all call ids to their last nine letters and digits, in calls and answers, as vLLM does."""
    waiting: list[str] = []
    count = 0
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["id"] = _short(call.get("id", str(count)))
            waiting.append(call["id"])
            count += 1
        if message["role"] == "tool":
            given = message.get("tool_call_id")
            message["tool_call_id"] = _short(given) if given is not None else (waiting[0] if waiting else _short("0"))
            waiting = [id_ for id_ in waiting if id_ != message["tool_call_id"]]


def _short(id_: object) -> str:
    return re.sub("[^a-zA-Z0-9]", "", str(id_))[-9:].rjust(9, "0")
