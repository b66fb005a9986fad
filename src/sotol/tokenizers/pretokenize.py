"""How byte-level BPE vocabularies split text into words before merging: one row per name in `tokenizer.ggml.pre`.

The regular expressions are those of the models' own `tokenizer.json` files. A row has several if the file splits in
several passes, unless one expression does the same faster. Which names share a row follows llama.cpp's table
(src/llama-vocab.cpp). Character classes are those of the `regex` package. Every expression takes linear time.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sotol.errors import ModelError

if TYPE_CHECKING:
    import regex

__all__ = ["PRETOKENIZERS", "PreTokenizer", "pretokenizer"]


@dataclass(frozen=True)
class PreTokenizer:
    """Splits text by regular expressions, one pass after the other: into the matches and the text between them.

    whole_words: a word that is a token is not merged (`ignore_merges`). add_bos: the default if the file has none.
    """

    expressions: tuple[str, ...]
    whole_words: bool = False
    add_bos: bool = False

    @cached_property
    def _compiled(self) -> "tuple[regex.Pattern[str], ...]":
        import regex  # noqa: PLC0415  (SentencePiece models do not need it)

        return tuple(regex.compile(f"({expression})", regex.VERSION1) for expression in self.expressions)

    def split(self, text: str) -> list[str]:
        """The words of `text`; joined, they give `text` again."""
        pieces = [text]
        for pattern in self._compiled:
            pieces = [word for piece in pieces for word in pattern.split(piece) if word]
        return pieces


# Parts that the expressions below share.
CONTRACTION = r"'(?i:s|t|re|ve|m|ll|d)"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"

GPT2 = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Two passes in one expression, single digits and then GPT2: a word of the second pass ends before any digit.
DIGITS_GPT2 = r"\p{N}|'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
LLAMA3 = rf"{CONTRACTION}|{WORD}|\p{{N}}{{1,3}}|{SYMBOLS}|{SPACES}"
QWEN2 = rf"{CONTRACTION}|{WORD}|\p{{N}}|{SYMBOLS}|{SPACES}"
SEED = rf"{CONTRACTION}|{WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+|{SPACES}"
QWEN35 = rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{SPACES}"

UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*")
GPT4O = (
    rf"{CASED[0]}(?:{CONTRACTION})?|{CASED[1]}(?:{CONTRACTION})?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"
)
TEKKEN = rf"{CASED[0]}|{CASED[1]}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"

# Letters of cased scripts, as DeepSeek LLM's tokenizer.json lists them.
CASED_LETTERS = (
    r"A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF\u0370-\u0373"
    r"\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F"
    r"\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77"
    r"\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D"
    r"\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB"
    r"\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128"
    r"\u212A-\u212D\u212F-\u2134\u2139\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4"
    r"\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF"
    r"\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-\U0001044F\U000104B0-\U000104D3"
    r"\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-\U00010CF2\U000118A0-\U000118DF\U0001E900-\U0001E943"
)
HAN = r"[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+"
# The lookbehind tries each run of spaces from its start only; without it, this expression takes quadratic time.
TRAILING_SPACES = r"(?<!\s)\s++\Z"
MARKS = r"!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002"
DEEPSEEK_LLM = (r"[\r\n]", rf"\s?[{CASED_LETTERS}]+", rf"\s?[{MARKS}]+", TRAILING_SPACES, HAN, r"\p{N}")
DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN, r"\p{N}")

# Three passes in one expression: up to three digits, then Han and kana, then the rest, which must not match the former.
KANA = r"\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF"
DEEPSEEK_V3 = (
    rf"\p{{N}}{{1,3}}|[{KANA}]+|[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{{|}}~][A-Za-z]+"
    rf"|[^\r\n\p{{L}}\p{{P}}\p{{S}}\p{{N}}{KANA}]?[[\p{{L}}\p{{M}}]--[{KANA}]]+| ?[[\p{{P}}\p{{S}}]--[{KANA}]]+[\r\n]*"
    rf"|\s*[\r\n]+|\s+(?![^\s\p{{N}}{KANA}])|\s+"
)

# llama.cpp's expressions for files that name none, or "default".
DEFAULT = (r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
FALCON = (r"[\p{P}$+<=>^~|`]+", GPT2, r"[0-9][0-9][0-9]")

PRETOKENIZERS: dict[str, PreTokenizer] = {
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        PreTokenizer((LLAMA3,), whole_words=True, add_bos=True),
    ),
    **dict.fromkeys(("glm4", "glm5"), PreTokenizer((LLAMA3,), whole_words=True)),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), PreTokenizer((LLAMA3,))),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
        PreTokenizer((DIGITS_GPT2,)),
    ),
    **dict.fromkeys(
        ("gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "a.x-4.0", "mellum", "exaone4", "trillion",
         "granite-docling"),
        PreTokenizer((GPT2,)),
    ),
    **dict.fromkeys(
        ("qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "solar-open", "grok-2", "kormo"),
        PreTokenizer((QWEN2,)),
    ),
    "seed-coder": PreTokenizer((SEED,)),
    "qwen35": PreTokenizer((QWEN35,)),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "minimax-m2"), PreTokenizer((GPT4O,))),
    "tekken": PreTokenizer((TEKKEN,), whole_words=True, add_bos=True),
    "deepseek-llm": PreTokenizer(DEEPSEEK_LLM),
    "deepseek-coder": PreTokenizer(DEEPSEEK_CODER),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), PreTokenizer((DEEPSEEK_V3,))),
    "falcon": PreTokenizer(FALCON),
    "default": PreTokenizer(DEFAULT),
}  # fmt: skip


def pretokenizer(name: str, source: str) -> PreTokenizer:
    """The row of that name; ModelError lists the supported names."""
    if name not in PRETOKENIZERS:
        known = ", ".join(sorted(PRETOKENIZERS))
        raise ModelError(
            f"{source}: the pre-tokenizer {name!r:.60} (tokenizer.ggml.pre) is not supported; these are: {known}"
        )
    return PRETOKENIZERS[name]
