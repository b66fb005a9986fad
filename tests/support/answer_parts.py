"""What the cases of `answers.py` are made of: a case, and calls as some formats write them."""

from typing import NamedTuple

__all__ = [
    "CODER", "COMMAND", "DSML", "GLM", "HERMES", "KIMI", "M3", "NOW", "OBJECT", "ROME", "SAID", "THOUGHT", "TRICKY",
    "TRICKY_OBJECT", "V3", "V31", "Case", "N", "T", "W", "as_object",
]  # fmt: skip


class Case(NamedTuple):
    """text: an answer. calls: names and arguments as JSON text."""

    format: str
    text: str
    content: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    reasoning: str = ""


ROME = '{"city": "Rome", "days": 2}'
TRICKY = r'{"city": "a\"}</tool_call>[TOOL_CALLS]\\", "tags": ["]}", {"x": {}}], "note": "é🎉\u00e9"}'
SAID = "<think>\nIt asks <b>me</b>.\n\n</think>\n\n"
THOUGHT = "It asks <b>me</b>."


def as_object(name: str, arguments: str, keys: tuple[str, str] = ("name", "arguments")) -> str:
    return f'{{"{keys[0]}": "{name}", "{keys[1]}": {arguments}}}'


W, N = ("get_weather", ROME), ("now", "{}")
T = ("get_weather", TRICKY)
OBJECT, TRICKY_OBJECT, NOW = as_object(*W), as_object(*T), as_object(*N)
HERMES = f"<tool_call>\n{OBJECT}\n</tool_call>"
CODER = (
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
    "</function>\n</tool_call>"
)
V3 = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>"
V31 = "<｜tool▁call▁begin｜>{}<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
GLM = (
    "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>days</arg_key>\n"
    "<arg_value>2</arg_value>\n</tool_call>"
)
KIMI = "<|tool_call_begin|>functions.{}:{}<|tool_call_argument_begin|>{}<|tool_call_end|>"
COMMAND = as_object("get_weather", ROME, ("tool_name", "parameters"))

M3 = "]<]minimax[>["
DSML = (
    '<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">Rome</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
    '<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n'
)
