"""What models of each format write, and what that says: the table that tests of the chat layer share."""

import json
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

from tests.support.answer_parts import (
    CODER,
    COMMAND,
    DSML,
    GLM,
    HERMES,
    KIMI,
    M3,
    NOW,
    OBJECT,
    ROME,
    SAID,
    THOUGHT,
    TRICKY,
    TRICKY_OBJECT,
    V3,
    V31,
    Case,
    N,
    T,
    W,
    as_object,
)  # fmt: skip

from sotol.answers.folding import Answer, fold
from sotol.answers.formats import FORMATS
from sotol.answers.forms import AnswerFormat
from sotol.answers.parser import AnswerParser
from sotol.answers.tools import Tool, declared

__all__ = ["CASES", "DESCRIBED", "TOOLS", "Case", "cut", "read"]

EMPTY = {"type": "object", "properties": {}}
DESCRIBED: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "metric": {"type": "boolean"},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": EMPTY}},
    {"type": "function", "function": {"name": "python", "description": "Runs code.", "parameters": EMPTY}},
]
TOOLS = declared(DESCRIBED)


CASES = [
    # Hermes
    Case("hermes", HERMES, calls=(W,)),
    Case("hermes", f"{SAID}Let me see.\n{HERMES}\n<tool_call>\n{NOW}\n</tool_call>", "Let me see.", (W, N), THOUGHT),
    Case("hermes", f"<tool_call>{TRICKY_OBJECT}</tool_call>", calls=(T,)),
    Case("hermes", f"One\n{HERMES}\n\nTwo {HERMES} three.\n", "One\nTwo three.", (W, W)),
    Case("hermes", f"One{HERMES} two", "One two", (W,)),
    Case("hermes", f'<tool_call>{{"arguments": {ROME}, "name": "get_weather"}}</tool_call>', calls=(W,)),
    Case("hermes", f'<tool_call>{{"id": 3, "name": "get_weather", "x": [1, "}}"], "arguments": {ROME}, "y": null}}',
         calls=(W,)),
    Case("hermes", '<tool_call>{"name": "now"}</tool_call>', calls=(N,)),
    Case("hermes", '<tool_call>{"name": "now", "arguments": null}</tool_call>', calls=(N,)),
    Case("hermes", f'<tool_call>{{"name": "get_weather", "arguments": {json.dumps(ROME)}}}</tool_call>', calls=(W,)),
    Case("hermes", f"<tool_call>\n{OBJECT}\n{NOW}</tool_call>", calls=(W, N)),
    Case("hermes", f"<tool_call>[{OBJECT}, {NOW}]</tool_call>", calls=(W, N)),
    Case("hermes", f"<tool_call>\n{OBJECT[:-1]}\n</tool_call>", calls=(W,)),
    Case("hermes", CODER, calls=(W,)),
    Case("hermes", "  \n" + HERMES + "  ", calls=(W,)),
    # … unfinished
    Case("hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Ro',
         calls=(("get_weather", '{"city": "Ro'),)),
    Case("hermes", '<tool_call>\n{"name": "get_weather", "argu', '<tool_call>\n{"name": "get_weather", "argu'),
    Case("hermes", "Hi <tool_", "Hi <tool_"),
    Case("hermes", "<think>\nWell", reasoning="Well"),
    Case("hermes", "<think>\nWell <tool_call>", reasoning="Well <tool_call>"),
    # … malformed
    Case("hermes", '<tool_call>{"name": "nope", "arguments": {}}</tool_call>',
         '<tool_call>{"name": "nope", "arguments": {}}</tool_call>'),
    Case("hermes", "<tool_call>get_weather()</tool_call>", "<tool_call>get_weather()</tool_call>"),
    Case("hermes", "<tool_call>{'name': 'now'}</tool_call>!", "<tool_call>{'name': 'now'}</tool_call>!"),
    Case("hermes", '<tool_call>{"name": "now", "arguments": [1]}</tool_call>',
         '<tool_call>{"name": "now", "arguments": [1]}</tool_call>'),
    Case("hermes", "Use <tool_call> for calls.", "Use <tool_call> for calls."),
    Case("hermes", f"<tool_call><tool_call>{OBJECT}</tool_call>", "<tool_call>", (W,)),
    Case("hermes", '<tool_call>{"name": "now", "arguments": {"a": oops</tool_call> and on',
         "and on", (("now", '{"a": oops'),)),
    Case("hermes", f"<tool_call>{OBJECT} oops</tool_call>", "oops</tool_call>", (W,)),
    Case("hermes", f'<tool_call>{NOW[:-1]}, "x": oops', ', "x": oops', (N,)),
    # … nothing of it
    Case("hermes", "Just <b>text</b> {1} [2]\n\n", "Just <b>text</b> {1} [2]\n\n"),
    Case("hermes", "\n  Indented", "\n  Indented"),
    Case("hermes", "No <think>thought</think> here", "No <think>thought</think> here"),
    # … reasoning
    Case("hermes", f"{SAID}Yes.", "Yes.", reasoning=THOUGHT),
    Case("hermes", "<think>\n\n</think>\n\nYes.", "Yes."),
    Case("hermes", "\n<think>A</think>\n<think>B</think>\n    code", "    code", reasoning="A\n\nB"),
    Case("hermes", f"<think>{HERMES}</think>{HERMES}", calls=(W,), reasoning=HERMES),
    Case("hermes", "<think>A</thin</think>B</think>C", "B</think>C", reasoning="A</thin"),
    # Qwen3-Coder
    Case("qwen3-coder", CODER, calls=(W,)),
    Case("qwen3-coder", f"{SAID}So:\n\n{CODER}\n<tool_call>\n<function=now>\n</function>\n</tool_call>", "So:", (W, N),
         THOUGHT),
    Case("qwen3-coder", CODER.removeprefix("<tool_call>\n"), calls=(W,)),
    Case("qwen3-coder",
         "<tool_call>\n<function=get_weather>\n<parameter=city>\na\n\n  \"b\"\t\\ </parameter>\n</parameter>\n"
         '<parameter=tags>\n["x", 1]\n</parameter>\n<parameter=metric>\nTrue\n</parameter>\n<parameter=note>\nnull\n'
         "</parameter>\n</function>\n</tool_call>",
         "</parameter>\n"
         '<parameter=tags>\n["x", 1]\n</parameter>\n<parameter=metric>\nTrue\n</parameter>\n<parameter=note>\nnull\n'
         "</parameter>\n</function>\n</tool_call>",
         (("get_weather", '{"city": "a\\n\\n  \\"b\\"\\t\\\\ "}'),)),
    Case("qwen3-coder",
         '<tool_call>\n<function=get_weather>\n<parameter=tags>\n["x", 1]\n</parameter>\n<parameter=metric>\nTrue\n'
         "</parameter>\n<parameter=note>\nnull\n</parameter>\n<parameter=days>\nsoon\n</parameter>\n<parameter=more>\n"
         "1.50\n</parameter>\n</function>\n</tool_call>",
         calls=(("get_weather", '{"tags": ["x", 1], "metric": true, "note": null, "days": "soon", "more": 1.50}'),)),
    Case("qwen3-coder", "<tool_call>\n<function=get_weather>\n<parameter=city>\nRo",
         calls=(("get_weather", '{"city": "Ro'),)),
    Case("qwen3-coder", "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n",
         calls=(("get_weather", '{"city": "Rome"'),)),
    Case("qwen3-coder", "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</func", "</func",
         (("get_weather", '{"city": "Rome"'),)),
    Case("qwen3-coder", "<tool_call>\n<function=now>\n<parameter=a>\n1\n</parameter>\nAnd", "And",
         (("now", '{"a": 1}'),)),
    Case("qwen3-coder", "<tool_call>\n<function=nope>\n</function>\n</tool_call>",
         "<tool_call>\n<function=nope>\n</function>\n</tool_call>"),
    Case("qwen3-coder", HERMES, calls=(W,)),
    # Llama 3
    Case("llama3", as_object(*W, ("name", "parameters")), calls=(W,)),
    Case("llama3", f'{{"type": "function", "name": "get_weather", "parameters": {ROME}}}', calls=(W,)),
    Case("llama3", f"{OBJECT}; {NOW}", calls=(W, N)),
    Case("llama3", f"{OBJECT}\n{NOW}\n", calls=(W, N)),
    Case("llama3", f"<|python_tag|>{OBJECT}", calls=(W,)),
    Case("llama3", '<|python_tag|>get_weather.call(city="Rome", days=2)', calls=(W,)),
    Case("llama3", '<|python_tag|>print("a\\n")\n', calls=(("python", '{"code": "print(\\"a\\\\n\\")"}'),)),
    Case("llama3", f"<function=get_weather>{ROME}</function>", calls=(W,)),
    Case("llama3", f"I look.\n\n{OBJECT}", "I look.", (W,)),
    Case("llama3", f"```json\n{OBJECT}\n```", calls=(W,)),
    Case("llama3", f"As in {OBJECT}", f"As in {OBJECT}"),
    Case("llama3", '{"city": "Rome", "name": "now"}', '{"city": "Rome", "name": "now"}'),
    Case("llama3", '{"name": "Rome", "parameters": {}}', '{"name": "Rome", "parameters": {}}'),
    Case("llama3", '{"name": "now"}', '{"name": "now"}'),
    Case("llama3", "[1, 2]\n{x}\n{\n", "[1, 2]\n{x}\n{\n"),
    Case("llama3", '```json\n{"a": 1}\n```', '```json\n{"a": 1}\n```'),
    # Mistral
    Case("mistral", f"[TOOL_CALLS][{OBJECT[:-1]}, \"id\": \"abcdefghi\"}}, {NOW}]", calls=(W, N)),
    Case("mistral", f"Well.[TOOL_CALLS] [{OBJECT}]", "Well.", (W,)),
    Case("mistral", f"[TOOL_CALLS]get_weather{ROME}", calls=(W,)),
    Case("mistral", "[TOOL_CALLS]", "[TOOL_CALLS]"),
    Case("mistral", "[TOOL_CALLS][]", "[TOOL_CALLS][]"),
    Case("mistral-v11", f"[TOOL_CALLS]get_weather[ARGS]{ROME}[TOOL_CALLS]now[ARGS]{{}}", calls=(W, N)),
    Case("mistral-v11", f"[THINK]Hm[/THINK]Ok[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{TRICKY}", "Ok", (T,),
         "Hm"),
    Case("mistral-v11", f"[TOOL_CALLS]get_weather {ROME}", calls=(W,)),
    Case("mistral-v11", f"[TOOL_CALLS]nope[ARGS]{ROME}", f"[TOOL_CALLS]nope[ARGS]{ROME}"),
    Case("mistral-v11", f"[TOOL_CALLS]{'x' * 300}[ARGS]{ROME}", f"[TOOL_CALLS]{'x' * 300}[ARGS]{ROME}"),
    Case("mistral-v11", f"[TOOL_CALLS]now[ARGS]{{}}[TOOL_CALLS]no{ROME}", f"[TOOL_CALLS]no{ROME}", (N,)),
    # DeepSeek
    Case("deepseek", "<｜tool▁calls▁begin｜>" + V3.format(*W) + "\n" + V3.format(*N) + "<｜tool▁calls▁end｜>",
         calls=(W, N)),
    Case("deepseek", f"{SAID}Now.\n\n" + V3.format(*T), "Now.", (T,), THOUGHT),
    Case("deepseek", "<｜tool▁calls▁begin｜>oops<｜tool▁calls▁end｜>",
         "<｜tool▁calls▁begin｜>oops<｜tool▁calls▁end｜>"),
    Case("deepseek-v3.1", "<｜tool▁calls▁begin｜>" + V31.format(*W) + V31.format(*N) + "<｜tool▁calls▁end｜>",
         calls=(W, N)),
    # Gemma
    Case("gemma", "```tool_code\nprint(get_weather(city='Rome', days=2))\n```", calls=(W,)),
    Case("gemma", f"Sure.\n```json\n{OBJECT}\n```\nDone", "Sure.\nDone", (W,)),
    Case("gemma", OBJECT, calls=(W,)),
    Case("gemma", "```tool_code\nimport os\n```", "```tool_code\nimport os\n```"),
    Case("gemma", "```python\n{}\n```", "```python\n{}\n```"),
    # Granite 3, Phi-4-mini, firefunction, Command R, Nemotron, Apriel, MiniMax-M1
    Case("granite3", f"<|tool_call|>[{OBJECT}, {NOW}]", calls=(W, N)),
    Case("granite3", f"<tool_call>[{OBJECT}]", calls=(W,)),
    Case("granite3", "<think>A</think><response>B</response>", "B", reasoning="A"),
    Case("phi4-mini", f"<|tool_call|>[{OBJECT}]<|/tool_call|>", calls=(W,)),
    Case("phi4-mini", f"<|tool_call|>{OBJECT}<|/tool_call|><|tool_call|>{NOW}<|/tool_call|>", calls=(W, N)),
    Case("phi4-mini", f"functools[{OBJECT}]", calls=(W,)),
    Case("phi4-mini", "The functools module", "The functools module"),
    Case("firefunction", f" functools[{OBJECT}, {NOW}]", calls=(W, N)),
    Case("command-r7b", f'<|START_THINKING|>Hm.<|END_THINKING|><|START_ACTION|>[\n    {{"tool_call_id": "0", '
         f"{COMMAND[1:]},\n    {as_object('now', '{}', ('tool_name', 'parameters'))}\n]<|END_ACTION|>",
         calls=(W, N), reasoning="Hm."),
    Case("command-r7b", "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Hi<|END_RESPONSE|>", "Hi",
         reasoning="Hm."),
    Case("command-r", f"Action: ```json\n[\n    {COMMAND}\n]```", calls=(W,)),
    Case("command-r", "Action: none", "Action: none"),
    Case("nemotron", f"{SAID}<TOOLCALL>[{OBJECT}, {NOW}]</TOOLCALL>", "", (W, N), THOUGHT),
    Case("apriel", f"Here are my reasoning steps:\nA\n[BEGIN FINAL RESPONSE]\nB\n<tool_calls>[{OBJECT}]</tool_calls>",
         "B", (W,), "A"),
    Case("apriel", "B\n[END FINAL RESPONSE]", "B\n"),
    Case("minimax-m1", f"<tool_calls>\n{OBJECT}\n{NOW}\n</tool_calls>", calls=(W, N)),
    # GLM, Kimi, Seed-OSS, MiniMax-M2, Functionary, LFM2
    Case("glm", f"\n{SAID}Fine.\n{GLM}\n<tool_call>now\n</tool_call>", "Fine.", (W, N), THOUGHT),
    Case("glm", GLM.replace("\n", ""), calls=(W,)),
    Case("glm", "<tool_call>get_weather<arg_key>city</arg_key><arg_value>\n a \n</arg_value></tool_call>",
         calls=(("get_weather", '{"city": "\\n a \\n"}'),)),
    Case("glm", "<tool_call>nope</tool_call>", "<tool_call>nope</tool_call>"),
    Case("glm", "<tool_call>now<arg_key>a</arg_key>oops", "<arg_key>a</arg_key>oops", (("now", "{"),)),
    Case("kimi-k2", "Ok<|tool_calls_section_begin|>" + KIMI.format("get_weather", 0, ROME) + KIMI.format("now", 1, "{}")
         + "<|tool_calls_section_end|>", "Ok", (W, N)),
    Case("kimi-k2", "<|tool_call_begin|>nope:0<|tool_call_argument_begin|>{}",
         "<|tool_call_begin|>nope:0<|tool_call_argument_begin|>{}"),
    Case("seed-oss", "<seed:think>A</seed:think>\nB\n\n<seed:tool_call>\n<function=get_weather>\n"
         "<parameter=city>Rome</parameter>\n<parameter=days>2</parameter>\n</function>\n</seed:tool_call>", "B", (W,),
         "A"),
    Case("minimax-m2", '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Rome</parameter>\n'
         '<parameter name="days">2</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>',
         calls=(W, N)),
    Case("functionary-v3.1", f"Hm.<function=get_weather>{ROME}</function><function=now>{{}}</function>", "Hm.", (W, N)),
    Case("lfm2", "<|tool_call_start|>[get_weather(city='Rome', days=2), now()]<|tool_call_end|>Good.", "Good.", (W, N)),
    Case("lfm2", '<|tool_call_start|>[get_weather("Rome", 2)]<|tool_call_end|>', calls=(W,)),
    Case("lfm2", '<|tool_call_start|>[now(), get_weather("Rome", 2, [], True, "", 6)]<|tool_call_end|>',
         '<|tool_call_start|>[now(), get_weather("Rome", 2, [], True, "", 6)]<|tool_call_end|>'),
    Case("lfm2", "<|tool_call_start|>[get_weather(x)]<|tool_call_end|>",
         "<|tool_call_start|>[get_weather(x)]<|tool_call_end|>"),
    # gpt-oss
    Case("harmony", "<|channel|>analysis<|message|>It asks <b>me</b>.<|end|><|start|>assistant<|channel|>commentary"
         f"<|message|>Let me see.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
         f"<|constrain|>json"
         f"<|message|>{ROME}<|call|>", "Let me see.", (W,), THOUGHT),
    Case("harmony", f" to=functions.get_weather<|channel|>commentary json<|message|>{TRICKY}", calls=(T,)),
    Case("harmony", "<|channel|>commentary to=now<|message|>{}<|call|><|start|>assistant<|channel|>analysis"
         " to=functions.get_weather code<|message|>" + ROME, calls=(N, W)),
    Case("harmony", "<|channel|>analysis<|message|>A <|end|><|start|>assistant<|channel|>analysis<|message|> B<|end|>"
         "<|start|>assistant<|channel|>final<|message|>One\n<|end|><|start|>assistant<|channel|>final <|constrain|>json"
         "<|message|>{}<|return|>", "One\n\n\n{}", reasoning="A\n\nB"),
    Case("harmony", "<|channel|>analysis<|message|>To be", reasoning="To be"),
    Case("harmony", "<|channel|>final<|message|> {1} [2] <b>\n", " {1} [2] <b>\n"),
    Case("harmony", f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{ROME[:12]}",
         calls=(("get_weather", ROME[:12]),)),
    # … malformed
    Case("harmony", "Hello.<|return|>", "Hello."),
    Case("harmony", "x" * 300, "x" * 300),
    Case("harmony", "<|channel|>commentary to=functions.nope<|message|>{}",
         "<|channel|>commentary to=functions.nope{}"),
    Case("harmony", "<|channel|>commentary to=functions.now json<|message|>[1]",
         "<|channel|>commentary to=functions.now json[1]"),
    Case("harmony", "<|channel|>odd one<|message|>A<|end|>", "<|channel|>odd oneA"),
    # Muse
    Case("muse", " to=self<|message|>It asks <b>me</b>.<|eom|><|start|>assistant to=get_weather<|message|>"
         '<atem:function_calls>\n<atem:invoke name="get_weather">\n<atem:parameter name="city">Rome</atem:parameter>\n'
         '<atem:parameter name="days">2</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|><|start|>'
         'assistant'
         ' to=now<|message|><atem:function_calls>\n<atem:invoke name="now">\n</atem:invoke>'
         '\n</atem:function_calls><|eot|>',
         calls=(W, N), reasoning=THOUGHT),
    Case("muse", " to=user<|message|>Hi <b>\n<|eot|>", "Hi <b>\n"),
    Case("muse", "<|message|>Hi<|eom|><|start|>assistant to=user<|message|>you<|eot|>", "Hi\n\nyou"),
    # Gemma 4
    Case("gemma4", '<|tool_call>call:get_weather{city:<|"|>Rome<|"|>,days:2}<tool_call|><|tool_call>'
         'call:now{}<tool_call|>',
         calls=(W, N)),
    Case("gemma4", '<|channel>thought\nIt asks <b>me</b>.\n<channel|>Fine.\n<|tool_call>'
         'call:get_weather{city:<|"|>a"}}<tool_'
         '\\ \n<|"|>,note:null,tags:[ <|"|>]},<|"|> , {x:{<|"|>y z<|"|>:-1.5e3}}, [],{} ],"metric" : '
         'true,}<tool_call|>',
         "Fine.", (("get_weather", '{"city": "a\\"}}<tool_\\\\ \\n", "note": null, "tags": ["]},", {"x": {"y z": '
         '-1.5e3}}, [], '
                    '{}], "metric": true}'),), THOUGHT),
    Case("gemma4", '<|tool_call>call:get_weather{city:Rome,days:"2"}', calls=(("get_weather", '{"city": "Rome", '
         '"days": "2"}'),)),
    Case("gemma4", '<|tool_call>call:get_weather{city:<|"|>Ro', calls=(("get_weather", '{"city": "Ro'),)),
    Case("gemma4", "<|tool_call>call:get_weather{days:1", calls=(("get_weather", '{"days": 1'),)),
    Case("gemma4", "<|tool_call>call:get_weather{days:1 then", calls=(("get_weather", '{"days": 1 then'),)),
    Case("gemma4", "<|tool_call>call:get_weather{days}<tool_call|>", "days}<tool_call|>", (("get_weather", "{"),)),
    Case("gemma4", "<|tool_call>call:get_weather{days:1 {2}", calls=(("get_weather", '{"days": "1 {2"}'),)),
    Case("gemma4", "<|tool_call>call:nope{}<tool_call|>", "<|tool_call>call:nope{}<tool_call|>"),
    # Apertus, GigaChat, Functionary 3.2, Llama 4
    Case("apertus", f'<|inner_prefix|>Hm.<|inner_suffix|>So.<|tools_prefix|>[{{"get_weather": {ROME}}}, {{"now": '
         f'{{}}}}]'
         "<|tools_suffix|>", "So.", (W, N), "Hm."),
    Case("apertus", '<|tools_prefix|>[{"nope": {}}]<|tools_suffix|>', '<|tools_prefix|>[{"nope": {}}]<|tools_suffix|>'),
    Case("apertus", '<|tools_prefix|>[{"now": null}]<|tools_suffix|>', calls=(N,)),
    Case("gigachat3", f"Said.<|message_sep|>\n\nfunction call<|role_sep|>\n{OBJECT}<|message_sep|>\n\n", "Said.", (W,)),
    Case("gigachat3", "A function call<b", "A function call<b"),
    Case("gigachat3.1", f"Said.<|function_call|>{OBJECT}<|message_sep|>\n\n", "Said.", (W,)),
    Case("functionary-v3.2", f"all\nSaid.>>>get_weather\n{ROME}>>>now\n{{}}", "Said.", (W, N)),
    Case("functionary-v3.2", f"get_weather\n{ROME}", calls=(W,)),
    Case("functionary-v3.2", f">>>get_weather\n{ROME}", calls=(W,)),
    Case("functionary-v3.2", "nope\n{}", "nope\n{}"),
    Case("functionary-v3.2", "all\n1 >> 2 >>> 3", "1 >> 2 >>> 3"),
    Case("llama4", as_object(*W, ("name", "parameters")), calls=(W,)),
    Case("llama4", '[get_weather(city="Rome", days=2), now()]', calls=(W, N)),
    Case("llama4", "Well:\n[ get_weather(city='a]\\')', tags=[\"]\", (1,)]) ]", "Well:",
         (("get_weather", '{"city": "a]\')", "tags": ["]", [1]]}'),)),
    Case("llama4", f"[{OBJECT}, {NOW}]", calls=(W, N)),
    Case("llama4", "[1] see (there)\n[nope(1)]\n[now", "[1] see (there)\n[nope(1)]\n[now"),
    Case("llama4", "[now(a=']", "[now(a=']"),
    Case("llama4", "<|python_start|>print(1)<|python_end|>", calls=(("python", '{"code": "print(1)"}'),)),
    # DeepSeek V3.2 and V4, Kimi K3, MiniMax-M3, MiniCPM5, Hunyuan 3, Solar Open
    Case("deepseek-v3.2", f"{SAID}So:\n\n<｜DSML｜function_calls>\n{DSML}</｜DSML｜function_calls>"
         f"", "So:", (W, N), THOUGHT),
    Case("deepseek-v3.2", '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n'
         '<｜DSML｜parameter name="note" '
         'string="false">null</｜DSML｜parameter>\n<｜DSML｜parameter name="city" string="false">"a"'
         '</｜DSML｜parameter>\n'
         '<｜DSML｜parameter name="days" string="true">2</｜DSML｜parameter>\n'
         '<｜DSML｜parameter name="x" string="false">y'
         "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
         calls=(("get_weather", '{"note": null, "city": "a", "days": "2", "x": "y"}'),)),
    Case("deepseek-v4", f"<think>{THOUGHT}</think><｜DSML｜tool_calls>\n{DSML}</｜DSML｜tool_calls>", "", (W, N),
         THOUGHT),
    Case("kimi-k3", "<|open|>think<|sep|>It asks <b>me</b>.<|close|>think<|sep|><|open|>response<|sep|>"
         "So.<|close|>response"
         '<|sep|><|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|><|open|>argument key="city" '
         'type="string"<|sep|>Rome<|close|>argument<|sep|><|open|>argument key="days" type="number"<|sep|>'
         '2<|close|>argument'
         '<|sep|><|close|>call<|sep|><|open|>call tool="now" index="2"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>'
         "<|close|>message<|sep|>", "So.", (W, N), THOUGHT),
    Case("kimi-k3", "<|open|>response<|sep|>Hi<|close|>response<|sep|><|close|>message<|sep|><|end_of_msg|>", "Hi"),
    Case("minimax-m3", f"<mm:think>{THOUGHT}</mm:think>So.{M3}<tool_call>\n{M3}<invoke name=\"get_weather\">"
         f"{M3}<city>Rome"
         f"{M3}</city>{M3}<days>2{M3}</days>{M3}</invoke>\n{M3}<invoke name=\"now\">{M3}</invoke>\n{M3}</tool_call>",
         "So.", (W, N), THOUGHT),
    Case("minimax-m3", f"</mm:think>{M3}<tool_call>\n{M3}<invoke name=\"get_weather\">{M3}<city>\n<a> \"b\" "
         f"{M3}</city>{M3}<tags>"
         f"{M3}<item>c{M3}</item>{M3}</tags>{M3}<more>{M3}<v>{M3}<item>{M3}<item>1{M3}</item>{M3}</item>{M3}</v>"
         f"{M3}<x>true{M3}</x>{M3}<y>"
         f"{M3}<z>w{M3}</z>{M3}</y>{M3}</more>{M3}</invoke>",
         calls=(("get_weather", '{"city": "\\n<a> \\"b\\" ", "tags": ["c"], "more": {"v": [[1]], "x": true, "y": '
         '{"z": "w"}}}'),)),
    Case("minimax-m3", f"{M3}<tool_call>{M3}<invoke name=\"get_weather\">{M3}<tags>{M3}</tags>{M3}<days>2", calls=(
        ("get_weather", '{"tags": [], "days": 2'),)),
    Case("minimax-m3", f"{M3}<invoke name=\"get_weather\">oops", "oops", (("get_weather", "{"),)),
    Case("minimax-m3", f'{M3}<invoke name="get_weather">{M3}<tags>one{M3}<item>two{M3}</item>',
         f"one{M3}<item>two{M3}</item>", (("get_weather", '{"tags": '),)),
    Case("minimax-m3", f'{M3}<invoke name="now">{M3}<a>1{M3}</b>', f"1{M3}</b>", (("now", '{"a": '),)),
    Case("minicpm5", '<function name="get_weather"><param name="city">Rome</param><param name="days">2</param>'
         '</function>'
         '\n<function name="now"></function>', calls=(W, N)),
    Case("minicpm5", f'{SAID}So.\n<function name="get_weather"><param name="city"><![CDATA[a\n</param> "b"]]></param>'
         "<param name=\"tags\">['x', True]</param><param name=\"days\"><![CDATA[3]]> </param></function>", "So.",
         (("get_weather", '{"city": "a\\n</param> \\"b\\"", "tags": ["x", true], "days": 3}'),), THOUGHT),
    Case("minicpm5", '<function name="get_weather"><param name="city"><![CDATA[a]', calls=(("get_weather"
         "", '{"city": "a]'),)),
    Case("hy3", "<think:opensource>It asks <b>me</b>.</think:opensource>So.<tool_calls:opensource>"
         "\n<tool_call:opensource>"
         "get_weather<tool_sep:opensource>\n<arg_key:opensource>city</arg_key:opensource>\n<arg_value:opensource>Rome"
         "</arg_value:opensource>\n<arg_key:opensource>days</arg_key:opensource>\n<arg_value:opensource>2"
         "</arg_value:opensource>\n</tool_call:opensource>\n<tool_call:opensource>now<tool_sep:opensource>\n"
         "</tool_call:opensource>\n</tool_calls:opensource>", "So.", (W, N), THOUGHT),
    Case("solar-open", f"<|think|>Hm.<|end|><|begin|>assistant<|tool_calls|><|tool_call:begin|>"
         f"a1b2c3d4e5<|tool_call:name|>"
         f"get_weather<|tool_call:args|>{ROME}<|tool_call:end|><|tool_call:begin|>a1b2c3d4e6<|tool_call:name|>now"
         "<|tool_call:args|>{}<|tool_call:end|><|calls|>", calls=(W, N), reasoning="Hm."),
    Case("solar-open", "<|content|>Hi<|end|>", "Hi"),
    # JSON
    Case("json", f"{OBJECT}", calls=(W,)),
    Case("json", f"[{OBJECT},\n{NOW}]", calls=(W, N)),
    Case("json", f"Call:\n```json\n{OBJECT}\n```", "Call:", (W,)),
    # Text
    Case("text", f"<think>{HERMES}", f"<think>{HERMES}"),
]  # fmt: skip


def read(
    format_: str | AnswerFormat,
    parts: Iterable[str],
    *,
    tools: Sequence[Tool] = TOOLS,
    thinking: bool = False,
    hidden: Iterable[str] = (),
    parallel: bool = True,
) -> Answer:
    """The answer of parts of its text. Ids that are made are numbers."""
    row = FORMATS[format_] if isinstance(format_, str) else format_
    ids = map(str, count())
    parser = AnswerParser(
        row, tools, thinking=thinking, hidden=frozenset(hidden), parallel=parallel, ids=lambda: next(ids)
    )
    pieces = [piece for part in parts for piece in parser.push(part)]
    return fold(pieces + parser.finish())


def cut(text: str, places: Iterable[int]) -> list[str]:
    """The text, cut at these places."""
    ends = sorted({place for place in places if 0 < place < len(text)})
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
