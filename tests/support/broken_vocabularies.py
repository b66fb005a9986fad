"""Vocabularies whose metadata is incomplete or wrong, as files in the wild have it, and what is to be made of each.

`tests/tokenizers` holds sotol to the table; `tests/parity` asks llama.cpp whether it does the same where the table says
so (`llama_cpp`), and elsewhere the reason stands beside the case.
"""

from typing import NamedTuple

from sotol.tokenizers.bpe import CHARACTER_OF_BYTE

__all__ = ["BPE", "CASES", "SENTENCEPIECE", "Broken", "bpe", "sentencepiece"]

PIECES = ["▁", *"abcdefghijklmnopqrstuvwxyzEOT<>[]|/_", "▁t", "he", "▁the", "in"]
SENTENCEPIECE = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
BPE = [*CHARACTER_OF_BYTE, "he", "Ġt", "Ġthe", "in", "<|begin|>", "<|finis|>"]
MERGES = ["h e", "Ġ t", "Ġt he", "i n"]
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

Fields = dict[str, object]


def sentencepiece(*more: tuple[str, int], **changes: object) -> Fields:
    """The fields of a SentencePiece vocabulary with more tokens, each with a type; None takes a field out."""
    types = [2, 3, 3, *[6] * 256, *[1] * len(PIECES), *(kind for _, kind in more)]
    fields: Fields = {
        "model": "llama", "tokens": [*SENTENCEPIECE, *(text for text, _ in more)], "token_type": types,
        "scores": [-float(i) for i in range(len(types))],
        "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0,
    }  # fmt: skip
    return _changed(fields, changes)


def bpe(*more: tuple[str, int], **changes: object) -> Fields:
    """The same for byte-level BPE, whose bos is `<|begin|>` and whose eos is `<|finis|>`."""
    types = [*[1] * (len(BPE) - 2), 3, 3, *(kind for _, kind in more)]
    fields: Fields = {
        "model": "gpt2", "pre": "gpt-2", "tokens": [*BPE, *(text for text, _ in more)], "token_type": types,
        "merges": MERGES, "bos_token_id": BPE.index("<|begin|>"), "eos_token_id": BPE.index("<|finis|>"),
    }  # fmt: skip
    return _changed(fields, changes)


def _changed(fields: Fields, changes: Fields) -> Fields:
    changed = {**fields, **changes}
    return {f"tokenizer.ggml.{name}": value for name, value in changed.items() if value is not None}


class Broken(NamedTuple):
    """A vocabulary, and what it must give. Tokens stand between spaces."""

    fields: Fields
    text: str
    tokens: str  # of the text
    ends: str  # those that end a generation
    warned: str = ""  # the field that the warning names
    llama_cpp: bool = True  # gives the same


TYPES = [2, 3, 3, *[6] * 256, *[1] * len(PIECES)]
SPM_V, BPE_V = len(SENTENCEPIECE), len(BPE)
NONE = 2**32 - 1  # -1, as files write it
TEXT, IN_TOKENS = "the in", "<s> ▁the ▁ in"
NAN = float("nan")

CASES = {
    "an end of a turn typed as user-defined": Broken(
        sentencepiece(("<turn|>", USER_DEFINED)), "<turn|>", "<s> ▁ < t u r n | >", "</s> <turn|>", "token_type"
    ),
    "ends of turns typed as normal and unused": Broken(
        sentencepiece(("[EOT]", NORMAL), ("<|im_end|>", UNUSED)),
        "[EOT]<|im_end|>",
        "<s> ▁ [ E O T ] < | i m _ e n d | >",
        "</s> [EOT] <|im_end|>",
        "token_type",
    ),
    "an end of a turn typed as normal, byte-level": Broken(
        bpe(("<|im_end|>", NORMAL)), "<|im_end|>", "< | i m _ e n d | >", "<|finis|> <|im_end|>", "token_type"
    ),
    # llama.cpp lets a user write an end that is user-defined and only named.
    "a named end typed as user-defined": Broken(
        sentencepiece(("<stop>", USER_DEFINED), eot_token_id=SPM_V),
        "<stop>",
        "<s> ▁ < s t o p >",
        "</s> <stop>",
        "token_type",
        llama_cpp=False,
    ),
    # llama.cpp lets a user begin a turn if the token for that is user-defined.
    "starts of turns typed as user-defined and normal": Broken(
        sentencepiece(("<|turn>", USER_DEFINED), ("[/INST]", NORMAL)),
        "<|turn>[/INST]",
        "<s> ▁ < | t u r n > [ / <0x49> <0x4E> <0x53> T ]",
        "</s>",
        "token_type",
        llama_cpp=False,
    ),
    "a word named as the end": Broken(
        sentencepiece(eos_token_id=SENTENCEPIECE.index("in")), TEXT, IN_TOKENS, "</s> in"
    ),
    # llama.cpp ends at any </s>, which in some vocabularies is HTML (its issue 23183).
    "</s> as text": Broken(bpe(("</s>", NORMAL)), "</s>", "< / s >", "<|finis|>", llama_cpp=False),
    "control tokens that end what fills a gap": Broken(
        bpe(("<fim_pad>", CONTROL), ("<reponame>", CONTROL), ("<|file_sep|>", CONTROL)),
        TEXT,
        "t he Ġ in",
        "<|finis|> <fim_pad> <reponame> <|file_sep|>",
    ),
    "bytes typed as normal": Broken(
        sentencepiece(token_type=[2, 3, 3, *[1] * (SPM_V - 3)]), "é", "<s> ▁ <0xC3> <0xA9>", "</s>", "token_type"
    ),
    # llama.cpp does not load it.
    "a word typed as a byte": Broken(
        sentencepiece(("er", 6)), "her", "<s> ▁ he r", "</s>", "token_type", llama_cpp=False
    ),
    "a type that there is not": Broken(
        sentencepiece(token_type=[*TYPES[:-1], 77]), TEXT, IN_TOKENS, "</s>", "token_type"
    ),
    "no types": Broken(
        sentencepiece(("<|im_end|>", NORMAL), token_type=None),
        "</s><|im_end|>",
        "<s> ▁ < / s > < | i m _ e n d | >",
        "</s> <|im_end|>",
        "token_type",
    ),
    # llama.cpp refuses this, and too few scores.
    "too few types": Broken(
        sentencepiece(("<|im_end|>", NORMAL), token_type=TYPES[:-2]),
        TEXT,
        IN_TOKENS,
        "</s> <|im_end|>",
        "token_type",
        llama_cpp=False,
    ),
    "too few scores": Broken(sentencepiece(scores=[0.0] * 280), TEXT, IN_TOKENS, "</s>", "scores", llama_cpp=False),
    "no scores": Broken(sentencepiece(scores=None), TEXT, IN_TOKENS, "</s>", "scores"),
    "scores that are no numbers": Broken(sentencepiece(scores=[NAN] * SPM_V), TEXT, IN_TOKENS, "</s>", "scores"),
    "eos behind the end": Broken(sentencepiece(eos_token_id=32000), TEXT, IN_TOKENS, "</s>", "eos_token_id"),
    "bos -1": Broken(sentencepiece(bos_token_id=NONE), TEXT, IN_TOKENS, "</s>", "bos_token_id"),
    "unknown -1": Broken(sentencepiece(unknown_token_id=NONE), TEXT, IN_TOKENS, "</s>", "unknown_token_id"),
    "eot behind the end": Broken(bpe(eot_token_id=999_999), TEXT, "t he Ġ in", "<|finis|>", "eot_token_id"),
    "no special ids": Broken(
        sentencepiece(bos_token_id=None, eos_token_id=None, unknown_token_id=None), TEXT, IN_TOKENS, "</s>"
    ),
    # llama.cpp takes the token 11, a control character here, as both ends.
    "no special ids, byte-level": Broken(
        bpe(bos_token_id=None, eos_token_id=None), TEXT, "t he Ġ in", "", llama_cpp=False
    ),
    # And puts it in front of every text.
    "bos wanted, but none": Broken(
        bpe(bos_token_id=None, pre="llama-bpe"), TEXT, "t he Ġ in", "<|finis|>", "bos_token_id", llama_cpp=False
    ),
    # llama.cpp refuses a truth value that is a number, and ends the process where a token comes twice.
    "a number for true": Broken(
        bpe(add_bos_token=1), TEXT, "<|begin|> t he Ġ in", "<|finis|>", "add_bos_token", llama_cpp=False
    ),
    "a token twice": Broken(
        sentencepiece(("in", NORMAL), ("</s>", CONTROL)), TEXT, IN_TOKENS, "</s>", "tokens", llama_cpp=False
    ),
    "no merges": Broken(bpe(merges=[]), TEXT, "t h e Ġ i n", "<|finis|>", "merges"),
    "a merge that is none": Broken(bpe(merges=["he", *MERGES]), TEXT, "t he Ġ in", "<|finis|>", "merges"),
    "no pre-tokenizer": Broken(bpe(pre=None), "the 123'in", "t he Ġ 1 2 3 ' in", "<|finis|>", "pre"),
    "the default pre-tokenizer": Broken(bpe(pre="default"), "the 123'in", "t he Ġ 1 2 3 ' in", "<|finis|>"),
}
