"""Reader of calls whose arguments stand between tags, each the text that it is."""

from sotol.answers.caller import Caller
from sotol.answers.forms import TaggedCalls, attribute
from sotol.answers.source import Malformed, Markers, Reading
from sotol.answers.tools import Tool
from sotol.answers.values import as_json, escaped, json_or_text, types_of

__all__ = ["tagged_calls"]

TEXT = frozenset({"string"})


def tagged_calls(form: TaggedCalls, opener: str, caller: Caller) -> Reading[None]:
    """Read the calls behind an opener; see `calls.read_calls`."""
    source = caller.source
    begin = form.begin.strip()
    if opener != begin:
        yield from source.space()
        if begin and not (yield from source.literal(begin)):
            raise Malformed
    while True:
        whole = yield from _tagged_call(form, caller)
        if not whole:  # what comes instead is read on behind the call
            return
        source.taken.clear()
        yield from source.space()
        if (yield from source.literal(begin, form.close.strip())) != begin or not begin:
            return


def _tagged_call(form: TaggedCalls, caller: Caller) -> Reading[bool]:
    """One, from behind the marker that begins it, and whether it has an end."""
    source, end, key = caller.source, form.end.strip(), form.key.strip()
    name_end, _, behind = attribute(form.name_end.strip())
    name, mark = yield from source.until(Markers([name_end, key, end]))
    if mark == name_end:
        source.take(len(mark))
        if behind:
            yield from _attribute(behind, caller)
    yield from source.space()
    tool = caller.tool(name.strip())
    tag = yield from source.literal(key, end)
    if not tag:
        raise Malformed
    caller.begin(tool, None)
    caller.give("{")
    source.taken.append(tag)  # of an argument that is not known to be one
    first = True
    while tag == key:
        yield from _tagged_argument(form, tool, caller, first=first)
        first = False
        yield from source.space()
        tag = yield from source.literal(key, end)
    if tag or not source.ended:  # a call that was cut off must not look like one that was not
        caller.give("}")
    return bool(tag)


def _attribute(end: str, caller: Caller) -> Reading[str]:
    """The value of an attribute, a word, up to what stands behind it."""
    value, mark = yield from caller.source.until(Markers([end]))
    if not value.isalnum():
        raise Malformed
    caller.source.take(len(mark))
    return value


def _tagged_argument(form: TaggedCalls, tool: Tool, caller: Caller, *, first: bool) -> Reading[None]:
    """One, from behind the tag of its key."""
    source = caller.source
    key_end, kind, behind = attribute(form.key_end.strip())
    key, _ = yield from source.until(Markers([key_end]))
    source.take(len(key_end))
    types = types_of(tool, key.strip())
    said = (yield from _attribute(behind, caller)) if kind else ""
    if kind:
        types = TEXT if said == ("true" if kind == "string" else "string") else frozenset()
    if form.value:
        yield from source.space()
        if not (yield from source.literal(form.value.strip())):
            raise Malformed
    if (form.value or form.key_end).endswith("\n") and (yield from source.peek()) == "\n":
        source.take(1)  # the written form's, not the value's
    caller.give(f'{"" if first else ", "}"{escaped(key.strip())}": ')
    quoted = yield from source.literal(form.literal[0])
    source.taken.clear()
    end = form.literal[1] if quoted else form.value_end.strip()
    breaks = form.value_end.startswith("\n") and not quoted  # the last one is not the value's
    ends = Markers([*(["\n" + end] if breaks else []), end, *caller.hidden.texts])
    if types == TEXT:
        caller.give('"')
        mark = yield from source.flow(ends, lambda text: caller.give(escaped(text)))
        ended = mark.endswith(end)
        caller.give('"' if ended else "")
    else:
        parts: list[str] = []
        mark = yield from source.flow(ends, parts.append)
        ended, text = mark.endswith(end), "".join(parts)
        caller.give(text if not ended else json_or_text(text) if kind else as_json(text, types))
    if not ended:
        raise Malformed
    source.take(len(mark))
    source.taken.clear()
    if quoted:
        yield from source.space()
        if not (yield from source.literal(form.value_end.strip())):
            raise Malformed
        source.taken.clear()
