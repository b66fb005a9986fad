"""gpt-oss's format, judged by its makers' package: prompts of the template mean the same, and answers say the same.

The package's vocabulary is that of GPT-4o, which a tokenizer.json has; the package checks its digest.
"""

import base64
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.answers import DESCRIBED, TOOLS, cut, read

from sotol.answers.finding import find_format
from sotol.answers.folding import Answer
from sotol.answers.formats import FORMATS
from sotol.tokenizers.bpe import BYTE_OF_CHARACTER
from sotol.tokenizers.chat import ChatTemplate
from sotol.tokenizers.provenance import unmarked

harmony = pytest.importorskip("openai_harmony")
FOLDER = Path(os.environ.get("SOTOL_PARITY", ""))
TEMPLATE, VOCABULARY = FOLDER / "templates/openai-gpt-oss-120b.jinja", FOLDER / "tokenizers/gpt4o/tokenizer.json"
if not os.environ.get("SOTOL_PARITY") or not TEMPLATE.exists() or not VOCABULARY.exists():
    pytest.skip("SOTOL_PARITY has no template of gpt-oss, or no vocabulary", allow_module_level=True)
TEXTS = 199_998  # tokens that are text, before the special ones


@pytest.fixture(scope="module")
def encoding(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("harmony")
    tokens = json.loads(VOCABULARY.read_text(encoding="utf-8"))["model"]["vocab"]
    ranked = sorted((rank, token) for token, rank in tokens.items() if rank < TEXTS)
    lines = (
        f"{base64.b64encode(bytes(BYTE_OF_CHARACTER[c] for c in token)).decode()} {rank}\n" for rank, token in ranked
    )
    (folder / "o200k_base.tiktoken").write_text("".join(lines), encoding="ascii")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_ENCODINGS_BASE", str(folder))
        return harmony.load_harmony_encoding("HarmonyGptOss")


def messages(encoding: Any, text: str, role: Any = None) -> list[tuple[str, str | None, str | None, str]]:
    """What the package reads in a text: role, channel, recipient, content."""
    ids = encoding.encode(text, allowed_special="all")
    read_as = encoding.parse_messages_from_completion_tokens(ids, role, strict=False)
    return [(m.author.role.value, m.channel, m.recipient, "".join(c.text for c in m.content)) for m in read_as]


def rendered(conversation: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
    template = ChatTemplate({"default": TEMPLATE.read_text(encoding="utf-8")})
    return unmarked(template.render(conversation, tools=tools))


def test_the_prompt_is_that_of_the_package(encoding: Any) -> None:
    """System and developer messages with tools, to the character; but a default has a comma more in the template."""
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where."},
            "days": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city"],
    }
    tools = [
        {"type": "function", "function": {"name": "weather", "description": "It.", "parameters": schema}},
        {"type": "function", "function": {"name": "now", "description": "The time."}},
    ]
    described = [
        harmony.ToolDescription.new("weather", "It.", parameters=schema),
        harmony.ToolDescription.new("now", "The time."),
    ]
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the weather?"},
    ]
    ours = rendered(said, tools=tools)
    system = harmony.SystemContent.new().with_conversation_start_date(datetime.now().strftime("%Y-%m-%d"))
    developer = harmony.DeveloperContent.new().with_instructions("Be brief.").with_function_tools(described)
    of_role = harmony.Message.from_role_and_content
    conversation = harmony.Conversation.from_messages(
        [
            of_role(harmony.Role.SYSTEM, system),
            of_role(harmony.Role.DEVELOPER, developer),
            of_role(harmony.Role.USER, "What is the weather?"),
        ]
    )
    theirs = encoding.decode(encoding.render_conversation_for_completion(conversation, harmony.Role.ASSISTANT))
    assert ours == theirs


def test_a_conversation_with_a_call_and_its_result(encoding: Any) -> None:
    """The template writes the call's recipient before its channel, and a result as JSON; it means the same."""
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
    conversation: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "thinking": "Which city?", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It rains."},
    ]
    text = rendered(conversation, DESCRIBED)
    assert text.endswith("<|start|>assistant")
    assert messages(encoding, text.removesuffix("<|start|>assistant"))[2:] == [
        ("user", None, None, "Weather?"),
        ("assistant", "analysis", None, "Which city?"),
        ("assistant", "commentary", "functions.get_weather", '{"city": "Oslo"}'),
        ("tool", "commentary", "assistant", '"It rains."'),
    ]


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).map(str.strip).filter(bool)
MESSAGE = st.one_of(
    st.tuples(st.just("analysis"), st.none(), TEXT),
    st.tuples(st.sampled_from(["final", "commentary"]), st.none(), TEXT),
    st.tuples(
        st.just("commentary"), st.sampled_from(["now", "get_weather"]), TEXT.map(lambda t: json.dumps({"city": t}))
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(MESSAGE, min_size=1, max_size=5), st.lists(st.integers(0, 400)))
def test_answers_say_what_the_package_reads(
    encoding: Any, said: list[tuple[str, str | None, str]], places: list[int]
) -> None:
    """Written by the package, and read by both, in any cuts."""
    written = [
        harmony.Message.from_role_and_content(harmony.Role.ASSISTANT, text).with_channel(channel)
        if name is None
        else harmony.Message.from_role_and_content(harmony.Role.ASSISTANT, text)
        .with_channel(channel)
        .with_recipient(f"functions.{name}")
        .with_content_type("<|constrain|>json")
        for channel, name, text in said
    ]
    whole = encoding.decode(encoding.render_conversation(harmony.Conversation.from_messages(written)))
    text = whole.removeprefix("<|start|>assistant")
    theirs = messages(encoding, text, harmony.Role.ASSISTANT)
    answer: Answer = read("harmony", cut(text, places), tools=TOOLS, hidden=FORMATS["harmony"].markers)
    assert answer.reasoning == "\n\n".join(t for _, channel, _, t in theirs if channel == "analysis")
    assert answer.content == "\n\n".join(t for _, channel, to, t in theirs if channel != "analysis" and to is None)
    called = [(to.removeprefix("functions."), t) for _, _, to, t in theirs if to is not None]
    assert [(call.name, call.arguments) for call in answer.calls] == called


def test_the_format_is_found() -> None:
    assert find_format(TEMPLATE.read_text(encoding="utf-8")).name == "harmony"
