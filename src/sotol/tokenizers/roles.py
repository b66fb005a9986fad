"""The roles of tokens: types, special tokens, and those that end a generation, even if the file has them wrong.

Types are those of the GGUF specification. Wrong ones are corrected as in llama.cpp (src/llama-vocab.cpp); where sotol
differs, the reason is given. One promise holds whatever a file says: a user's text can neither end nor begin a turn.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from sotol.arrays import Int8Array
from sotol.tokenizers.fields import TokenizerFields

__all__ = ["BYTE_TEXTS", "TokenTexts", "TokenType", "ends_of_generation", "mark_special", "read_types", "special_ids"]

BYTE_TEXTS = tuple(f"<0x{byte:02X}>" for byte in range(256))

# Texts of tokens that end a turn whatever the metadata says, after llama.cpp's `special_eog_ids`; and, last, those of
# Llama 4, Kimi K3, Apertus, Seed-OSS and EXAONE, which it knows from the metadata alone.
END_TEXTS = frozenset({
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>",
    "<end_of_turn>", "<turn|>", "<|tool_response>", "<|endoftext|>", "<|end_of_text|>", "<end_of_utterance>", "</s>",
    "<eos>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "[e~[", "<\uff5cend▁of▁sentence\uff5c>", "<|eot|>", "<|end_of_msg|>",
    "<|assistant_end|>", "<seed:eos>", "[|endofturn|]",
})  # fmt: skip

# Texts of tokens that begin a turn, or surround its role, in the formats of `presets.py` and those of Gemma 4 and
# gpt-oss. llama.cpp keeps the types that the file gives these; Command R's are user-defined.
START_TEXTS = frozenset({
    "<|im_start|>", "<start_of_turn>", "<|turn>", "<|start_header_id|>", "<|end_header_id|>", "<|start_of_role|>",
    "<|end_of_role|>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<|system|>", "<|user|>", "<|assistant|>",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]", "<|start|>", "<|message|>", "<|channel|>", "<|channel>",
    "<|header_start|>", "<|header_end|>", "<|im_sep|>", "<|im_system|>", "<|im_user|>", "<|im_assistant|>",
    "<|im_middle|>", "<seed:bos>", "<|begin|>", "<|content|>", "[|system|]", "[|user|]", "[|assistant|]",
})  # fmt: skip

# This one is also HTML: a file that types it as text means that, as Qwen's and Gemma 3's do. llama.cpp makes it an end
# of generation all the same (its issue 23183).
STRUCK_OUT = "</s>"

# Control tokens with these texts end a fill-in-the-middle completion, if the metadata does not name the token; again
# after llama.cpp.
FILL_ENDS = {
    "fim_pad": frozenset({"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}),
    "fim_rep": frozenset({"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}),
    "fim_sep": frozenset({"<|file_sep|>"}),
}

# Harmony (gpt-oss) and Solar end a *message* with `<|end|>` and go on; these tokens identify such a vocabulary.
MESSAGE_ENDS = ({"<|return|>", "<|call|>"}, {"<|calls|>", "<|flush|>"})

TURN_ENDS = ("eos", "eot", "eom")
NAMED = ("bos", *TURN_ENDS, "unknown", *FILL_ENDS)  # fields "bos_token_id" and so on

# Default ids by kind of vocabulary, as in llama.cpp. Its default for byte-level BPE, 11, is left out: that is Falcon's
# end of text, but a comma in GPT-2's vocabulary, so answers would end at each comma.
DEFAULTS = {"llama": {"bos": 1, "eos": 2, "unknown": 0}}


class TokenType(IntEnum):
    """The type of a token (GGUF's `tokenizer.ggml.token_type`)."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


TEXT = (TokenType.NORMAL, TokenType.USER_DEFINED)
SHOWN = 4  # the most mistyped tokens that a remark names


class TokenTexts(NamedTuple):
    """The texts of all tokens by id, and the first id of each text."""

    texts: list[str]
    ids: dict[str, int]

    def places(self, wanted: frozenset[str]) -> list[int]:
        """The ids of the tokens with these texts."""
        if len(self.ids) == len(self.texts):
            return [self.ids[text] for text in wanted & self.ids.keys()]
        return [i for i, text in enumerate(self.texts) if text in wanted]


def read_types(fields: TokenizerFields, tokens: TokenTexts, model: str) -> Int8Array:
    """[V] of TokenType, none UNDEFINED: tokens without a valid type are text. (llama.cpp hides such tokens.)"""
    count, numbers = len(tokens.texts), fields.array("token_type", int)
    if numbers is None:
        fields.remark("token_type", "is missing: tokens are text, but for those that look special")
    elif len(numbers) < count:
        fields.remark("token_type", f"has {len(numbers)} entries for {count} tokens: the others are taken as text")
    if numbers is None or len(numbers) != count:
        numbers = [*(numbers or [])[:count], *[TokenType.NORMAL] * (count - len(numbers or []))]
    try:
        types = np.frombuffer(bytearray(numbers), np.int8)  # bytearray checks the range faster than a loop
    except ValueError:
        types = np.frombuffer(bytearray(n if 0 <= n < 128 else 127 for n in numbers), np.int8)
    strange = (types < 0) | (types > max(TokenType))
    if strange.any():
        fields.remark("token_type", f"has {numbers[int(strange.argmax())]}, which is no type: it is taken as text")
    types[strange | (types == TokenType.UNDEFINED)] = TokenType.NORMAL
    _mark_bytes(fields, tokens, types, model)
    return types


def _mark_bytes(fields: TokenizerFields, tokens: TokenTexts, types: Int8Array, model: str) -> None:
    """Make `<0x00>` to `<0xFF>` byte tokens, in vocabularies that write bytes like this, and no other token.

    llama.cpp also finds them by their text when it encodes, but if they have another type, it decodes them as text.
    """
    known = frozenset(BYTE_TEXTS)
    for i in np.flatnonzero(types == TokenType.BYTE).tolist():
        if tokens.texts[i] not in known:
            fields.remark("token_type", f"says that {tokens.texts[i]!r:.60} is a byte: it is taken as text")
            types[i] = TokenType.NORMAL
    if model in ("llama", "gemma4"):
        places = np.array(tokens.places(known), np.int64)
        mistyped = places[types[places] != TokenType.BYTE]
        if len(mistyped) and fields.has("token_type"):
            fields.remark("token_type", f"does not say that {tokens.texts[mistyped[0]]} is a byte: it is taken as one")
        types[mistyped] = TokenType.BYTE


def special_ids(fields: TokenizerFields, tokens: TokenTexts, model: str) -> dict[str, int | None]:
    """The special tokens by name, from the metadata. A default is used only if its token looks special."""
    found: dict[str, int | None] = {}
    for name in NAMED:
        default = DEFAULTS.get(model, {}).get(name)
        if default is not None and not (default < len(tokens.texts) and _looks_special(tokens.texts[default])):
            default = None
        found[name] = fields.token_id(f"{name}_token_id", len(tokens.texts), default)
    return found


def mark_special(
    fields: TokenizerFields, tokens: TokenTexts, types: Int8Array, named: Mapping[str, int | None]
) -> None:
    """Make control tokens of all that end or begin a turn and of those that the metadata names, whatever their types.

    Otherwise a user's text could end or begin a turn. llama.cpp does this for known ends of turns. Tokens that are only
    named must also look special, since some files name an ordinary word.
    """
    known = tokens.places(END_TEXTS | START_TEXTS)
    if fields.has("token_type"):
        known = [i for i in known if tokens.texts[i] != STRUCK_OUT or types[i] not in TEXT]
    else:  # without types, the markers of chats are recognised by their form; llama.cpp treats them as text
        known += [i for i, text in enumerate(tokens.texts) if text.startswith("<|") and text.endswith("|>")]
    others = (named[name] for name in ("bos", *TURN_ENDS))
    special = {*known, *(i for i in others if i is not None and _looks_special(tokens.texts[i]))}
    mistyped = sorted(i for i in special if types[i] not in (TokenType.CONTROL, TokenType.UNKNOWN))
    if mistyped and fields.has("token_type"):
        texts = ", ".join(f"{tokens.texts[i]!r:.60}" for i in mistyped[:SHOWN])
        fields.remark("token_type", f"does not say that {texts} is a control token: it is taken as one")
    types[mistyped] = TokenType.CONTROL


def ends_of_generation(tokens: TokenTexts, types: Int8Array, named: Mapping[str, int | None]) -> frozenset[int]:
    """Every token that ends a generation: those that the metadata names, and control tokens with a known text."""

    def control(texts: frozenset[str]) -> set[int]:
        return {i for i in tokens.places(texts) if types[i] == TokenType.CONTROL}

    found = control(END_TEXTS)
    texts = {tokens.texts[i] for i in found}
    if any(pair <= texts for pair in MESSAGE_ENDS):
        found = {i for i in found if tokens.texts[i] != "<|end|>"}
    found |= {i for name in TURN_ENDS if (i := named[name]) is not None}
    for name, texts_of_name in FILL_ENDS.items():
        i = named[name]
        found |= control(texts_of_name) if i is None else {i}
    return frozenset(found)


def _looks_special(text: str) -> bool:
    """Whether a text looks like `<s>` or `[EOS]`, not like a word."""
    return len(text) > 2 and text[0] + text[-1] in ("<>", "[]")
