"""How models write their answers: a row of data for each format.

The facts are those of the chat templates that the models' makers publish, and of what llama.cpp (common/chat*.cpp) and
vLLM (vllm/tool_parsers) know of what the models really write.
"""

from sotol.answers.forms import (
    TEXT,
    AnswerFormat,
    ElementCalls,
    Header,
    JsonCalls,
    Messages,
    NamedCalls,
    PythonCalls,
    QuotedCalls,
    TaggedCalls,
    Thinking,
)

__all__ = ["FORMATS", "THINKING"]

THINK = Thinking("<think>", "</think>")
ANALYSIS = Thinking("<|channel|>analysis<|message|>", "<|end|>", sign="<|channel|>analysis<|message|>")  # gpt-oss
SELF = Thinking(" to=self<|message|>", "<|eom|>", sign=" to=self<|message|>")  # Muse
# All ways to mark reasoning; a template tells which are its model's.
THINKING = (
    THINK,
    Thinking("<thinking>", "</thinking>"),
    Thinking("[THINK]", "[/THINK]"),  # Magistral, Ministral 3
    Thinking("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning, R7B
    Thinking("<seed:think>", "</seed:think>"),  # Seed-OSS
    Thinking("Here is my thought process:", "Here is my response:"),  # Granite 3.2
    Thinking("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel
    ANALYSIS,
    Thinking("<|channel>thought", "<channel|>"),  # Gemma 4
    Thinking("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Thinking("<mm:think>", "</mm:think>"),  # MiniMax-M3
    Thinking("<think:opensource>", "</think:opensource>", sign="<think{}>"),  # Hunyuan 3
    Thinking("<|open|>think<|sep|>", "<|close|>think<|sep|>", sign="close_tag('think')"),  # Kimi K3
    Thinking("<|think|>", "<|end|>", sign="<|begin|>assistant<|think|>"),  # Solar Open
    SELF,
)

FENCED = JsonCalls("```json\n", "\n```", strict=True)
HERMES = JsonCalls("<tool_call>\n", "\n</tool_call>")
QWEN3_CODER = TaggedCalls(
    open="<tool_call>\n",
    close="\n</tool_call>",
    begin="<function=",
    name_end=">\n",
    end="</function>",
    key="<parameter=",
    key_end=">\n",
    value="",
    value_end="\n</parameter>\n",
)
DEEPSEEK = NamedCalls(
    open="<｜tool▁calls▁begin｜>",
    close="<｜tool▁calls▁end｜>",
    begin="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    separator="\n```json\n",
    end="\n```<｜tool▁call▁end｜>",
)
# What V3.2 and V4 write; the mark in each tag is a token.
DSML = TaggedCalls(
    open="<｜DSML｜tool_calls>\n",
    close="</｜DSML｜tool_calls>",
    begin='<｜DSML｜invoke name="',
    name_end='">\n',
    end="</｜DSML｜invoke>\n",
    key='<｜DSML｜parameter name="',
    key_end='" string="{string}">',
    value="",
    value_end="</｜DSML｜parameter>\n",
)
MISTRAL_LIST = JsonCalls("[TOOL_CALLS]", listed=True, id="id")
MISTRAL_NAMED = NamedCalls(begin="[TOOL_CALLS]", separator="[ARGS]", id="[CALL_ID]")

# Of headers of gpt-oss's messages: the tool that a message is for, and in which form it is.
RECIPIENT = r"(?:functions\.)?(?P<name>[\w.-]+)"
CONSTRAINT = r"\s*(?:<\|constrain\|>)?\s*\w*\s*"

ROWS = (
    TEXT,
    # Hermes 2 and 3, Qwen 2.5 and 3, QwQ, Granite 4, SmolLM3, MiMo, Bielik. Some of Qwen 3 write as Qwen3-Coder does.
    AnswerFormat("hermes", (HERMES, QWEN3_CODER), (THINK,)),
    # Qwen3-Coder, Qwen 3.5, Nemotron 3, Step 3.5
    AnswerFormat("qwen3-coder", (QWEN3_CODER, HERMES), (THINK,)),
    # Llama 3.1 to 3.3: bare objects; their tools of Meta's, and Python, behind <|python_tag|>
    AnswerFormat(
        "llama3",
        (
            JsonCalls("", arguments=("parameters", "arguments"), strict=True),
            JsonCalls("<|python_tag|>", arguments=("parameters", "arguments")),
            PythonCalls("<|python_tag|>", code=("python", "ipython", "code_interpreter")),
            NamedCalls(begin="<function=", separator=">", end="</function>"),
            FENCED,
        ),
    ),
    # Mistral's tokenizers up to v7: Mistral 7B v0.3, Nemo, Small 3
    AnswerFormat("mistral", (MISTRAL_LIST, MISTRAL_NAMED), ids="nine"),
    # v11 (with ids) and v13: Small 3.2, Devstral, Magistral, Ministral 3
    AnswerFormat("mistral-v11", (MISTRAL_NAMED, MISTRAL_LIST), (Thinking("[THINK]", "[/THINK]"),), ids="nine"),
    # DeepSeek R1 and V3, and R1's distillations
    AnswerFormat("deepseek", (DEEPSEEK,), (THINK,)),
    AnswerFormat(
        "deepseek-v3.1",
        (DEEPSEEK._replace(begin="<｜tool▁call▁begin｜>", separator="<｜tool▁sep｜>", end="<｜tool▁call▁end｜>"),),
        (THINK,),
    ),
    # Gemma 2 and 3 know calls from their prompts only; Google's examples have Python and JSON, in fences or bare.
    AnswerFormat(
        "gemma",
        (FENCED, PythonCalls("```tool_code\n", "\n```"), JsonCalls("", strict=True)),
    ),
    # Granite 3
    AnswerFormat(
        "granite3", (JsonCalls("<|tool_call|>", listed=True), JsonCalls("<tool_call>", listed=True)), (THINK,),
        silent=("<response>", "</response>"),
    ),
    AnswerFormat(
        "phi4-mini",
        (
            JsonCalls("<|tool_call|>", "<|/tool_call|>", listed=True),
            JsonCalls("functools", listed=True),
        ),
    ),
    AnswerFormat("firefunction", (JsonCalls("functools", listed=True),)),
    # Command R7B, Command A
    AnswerFormat(
        "command-r7b",
        (
            JsonCalls(
                "<|START_ACTION|>", "<|END_ACTION|>", listed=True, name=("tool_name", "name"),
                arguments=("parameters", "arguments"),
            ),
        ),
        (Thinking("<|START_THINKING|>", "<|END_THINKING|>"),),
        silent=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    # Command R and R+
    AnswerFormat(
        "command-r",
        (
            JsonCalls(
                "Action: ```json\n", "\n```", listed=True, name=("tool_name", "name"),
                arguments=("parameters", "arguments"),
            ),
            JsonCalls(
                "Action:```json\n", "\n```", listed=True, name=("tool_name", "name"),
                arguments=("parameters", "arguments"),
            ),
        ),
    ),
    # GLM 4.5 to 4.7, Ling 3, Laguna
    AnswerFormat(
        "glm",
        (
            TaggedCalls(
                open="<tool_call>", close="", begin="", name_end="\n", end="</tool_call>",
                key="<arg_key>", key_end="</arg_key>\n", value="<arg_value>", value_end="</arg_value>\n",
            ),
        ),
        (THINK,),
    ),
    AnswerFormat(
        "kimi-k2",
        (
            NamedCalls(
                open="<|tool_calls_section_begin|>", close="<|tool_calls_section_end|>", begin="<|tool_call_begin|>",
                separator="<|tool_call_argument_begin|>", end="<|tool_call_end|>",
                name=r"(?:functions\.)?(?P<name>.+):\d+",
            ),
        ),
        (THINK,),
    ),
    AnswerFormat(
        "seed-oss",
        (
            QWEN3_CODER._replace(
                open="<seed:tool_call>\n", close="\n</seed:tool_call>", key_end=">", value_end="</parameter>\n"
            ),
        ),
        (Thinking("<seed:think>", "</seed:think>"),),
    ),
    AnswerFormat(
        "minimax-m2",
        (
            TaggedCalls(
                open="<minimax:tool_call>\n", close="</minimax:tool_call>", begin='<invoke name="', name_end='">\n',
                end="</invoke>\n", key='<parameter name="', key_end='">', value="", value_end="</parameter>\n",
            ),
        ),
        (THINK,),
    ),
    # MiniMax-M3; where it does not think, it says so
    AnswerFormat(
        "minimax-m3",
        (
            ElementCalls(
                open="]<]minimax[>[<tool_call>\n", close="]<]minimax[>[</tool_call>",
                begin=']<]minimax[>[<invoke name="', name_end='">', end="]<]minimax[>[</invoke>\n",
                mark="]<]minimax[>[",
            ),
        ),
        (Thinking("<mm:think>", "</mm:think>"),),
        silent=("</mm:think>",),
    ),
    AnswerFormat(
        "deepseek-v3.2",
        (DSML._replace(open="<｜DSML｜function_calls>\n", close="</｜DSML｜function_calls>"),),
        (THINK,),
    ),
    AnswerFormat("deepseek-v4", (DSML,), (THINK,)),
    # gpt-oss (https://cookbook.openai.com/articles/openai-harmony); an answer ends with its call.
    AnswerFormat(
        "harmony",
        (NamedCalls(begin="<|channel|>commentary to=functions.", separator=" <|constrain|>json<|message|>"),),
        (ANALYSIS,),
        messages=Messages(
            start="<|start|>assistant", body="<|message|>", ends=("<|end|>", "<|call|>", "<|return|>"),
            headers=(
                Header(rf"\s*to={RECIPIENT}\s*<\|channel\|>(?:commentary|analysis){CONSTRAINT}", "call"),
                Header(rf"\s*<\|channel\|>(?:commentary|analysis)\s*to={RECIPIENT}{CONSTRAINT}", "call"),
                Header(r"\s*<\|channel\|>analysis\s*", "thought"),
                Header(rf"\s*(?:<\|channel\|>(?:commentary|final){CONSTRAINT})?", "said"),
            ),
            tokens=("<|channel|>", "<|constrain|>"),
        ),
        said=("<|channel|>final<|message|>", ""), between="<|start|>assistant",
    ),
    AnswerFormat(
        "gemma4", (QuotedCalls("<|tool_call>call:", "<tool_call|>", '<|"|>'),),
        (Thinking("<|channel>thought", "<channel|>"),),
    ),
    AnswerFormat(
        "apertus", (JsonCalls("<|tools_prefix|>", "<|tools_suffix|>", listed=True, keyed=True),),
        (Thinking("<|inner_prefix|>", "<|inner_suffix|>"),),
    ),
    AnswerFormat(
        "gigachat3", (JsonCalls("function call<|role_sep|>\n", "<|message_sep|>"),), silent=("<|message_sep|>",)
    ),
    AnswerFormat("gigachat3.1", (JsonCalls("<|function_call|>"),), silent=("<|message_sep|>",)),
    AnswerFormat(
        "kimi-k3",
        (
            TaggedCalls(
                open="<|open|>tools<|sep|>", close="<|close|>tools<|sep|>", begin='<|open|>call tool="',
                name_end='" index="{index}"<|sep|>', end="<|close|>call<|sep|>", key='<|open|>argument key="',
                key_end='" type="{type}"<|sep|>', value="", value_end="<|close|>argument<|sep|>",
            ),
        ),
        (Thinking("<|open|>think<|sep|>", "<|close|>think<|sep|>", sign="close_tag('think')"),),
        silent=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>", "<|end_of_msg|>"),
        said=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
    ),
    # Functionary 3.2, whose template writes the first >>>
    AnswerFormat(
        "functionary-v3.2", (NamedCalls(begin=">>>", separator="\n"),), silent=(">>>all\n",), said=(">>>all\n", ""),
        begun=">>>",
    ),
    AnswerFormat(
        "muse",
        (
            TaggedCalls(
                open="<atem:function_calls>\n", close="</atem:function_calls>", begin='<atem:invoke name="',
                name_end='">\n', end="</atem:invoke>\n", key='<atem:parameter name="', key_end='">', value="",
                value_end="</atem:parameter>\n",
            ),
        ),
        (SELF,),
        messages=Messages(
            start="<|start|>assistant", body="<|message|>", ends=("<|eom|>", "<|eot|>"),
            headers=(Header(r"\s*to=self\s*", "thought"), Header(r"\s*(?:to=[\w.-]+)?\s*", "said")),
            lead=" to={name}<|message|>",
        ),
        said=(" to=user<|message|>", ""), between="<|start|>assistant",
    ),
    AnswerFormat(
        "minicpm5",
        (
            TaggedCalls(
                open="", close="", begin='<function name="', name_end='">', end="</function>", key='<param name="',
                key_end='">', value="", value_end="</param>", literal=("<![CDATA[", "]]>"),
            ),
        ),
        (THINK,),
    ),
    # Hunyuan 3
    AnswerFormat(
        "hy3",
        (
            TaggedCalls(
                open="<tool_calls:opensource>\n", close="</tool_calls:opensource>", begin="<tool_call:opensource>",
                name_end="<tool_sep:opensource>\n", end="</tool_call:opensource>\n", key="<arg_key:opensource>",
                key_end="</arg_key:opensource>\n", value="<arg_value:opensource>",
                value_end="</arg_value:opensource>\n",
            ),
        ),
        (Thinking("<think:opensource>", "</think:opensource>", sign="<think{}>"),),
    ),
    AnswerFormat(
        "solar-open",
        (
            NamedCalls(
                open="<|tool_calls|>", begin="<|tool_call:begin|>", named="<|tool_call:name|>",
                separator="<|tool_call:args|>", end="<|tool_call:end|>",
            ),
        ),
        (Thinking("<|think|>", "<|end|>", sign="<|begin|>assistant<|think|>"),),
        silent=("<|begin|>assistant", "<|content|>", "<|end|>", "<|calls|>", "<|flush|>"),
        said=("<|content|>", ""), between="<|begin|>assistant",
    ),
    # Llama 4: objects as its template wants them, or lists as in Meta's examples
    AnswerFormat(
        "llama4",
        (
            JsonCalls("", arguments=("parameters", "arguments"), strict=True),
            PythonCalls(""),
            PythonCalls("<|python_start|>", "<|python_end|>", code=("python", "ipython", "code_interpreter")),
        ),
    ),
    AnswerFormat("functionary-v3.1", (NamedCalls(begin="<function=", separator=">", end="</function>"),)),
    AnswerFormat("lfm2", (PythonCalls("<|tool_call_start|>", "<|tool_call_end|>"),), (THINK,)),
    AnswerFormat("nemotron", (JsonCalls("<TOOLCALL>", "</TOOLCALL>", listed=True),), (THINK,)),
    # Apriel 1.5 and 1.6
    AnswerFormat(
        "apriel", (JsonCalls("<tool_calls>", "</tool_calls>", listed=True),),
        (Thinking("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),), silent=("[END FINAL RESPONSE]",),
    ),
    AnswerFormat("minimax-m1", (JsonCalls("<tool_calls>\n", "\n</tool_calls>"),), (THINK,)),
    # What models do that were only told to write JSON
    AnswerFormat("json", (JsonCalls("", strict=True), FENCED, HERMES), (THINK,)),
)  # fmt: skip

FORMATS = {row.name: row for row in ROWS}
