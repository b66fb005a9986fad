"""How models write their answers: a row of data for each format.

The facts are those of the chat templates that the models' makers publish, and of what llama.cpp (common/chat*.cpp) and
vLLM (vllm/tool_parsers) know of what the models really write.
"""

from sotol.answers.forms import TEXT, AnswerFormat, JsonCalls, NamedCalls, PythonCalls, TaggedCalls, Thinking

__all__ = ["FORMATS", "THINKING"]

THINK = Thinking("<think>", "</think>")
# All ways to mark reasoning; a template tells which are its model's.
THINKING = (
    THINK,
    Thinking("<thinking>", "</thinking>"),
    Thinking("[THINK]", "[/THINK]"),  # Magistral, Ministral 3
    Thinking("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning, R7B
    Thinking("<seed:think>", "</seed:think>"),  # Seed-OSS
    Thinking("Here is my thought process:", "Here is my response:"),  # Granite 3.2
    Thinking("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel
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
MISTRAL_LIST = JsonCalls("[TOOL_CALLS]", listed=True, id="id")
MISTRAL_NAMED = NamedCalls(begin="[TOOL_CALLS]", separator="[ARGS]", id="[CALL_ID]")

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
