"""The name in `tokenizer.ggml.pre` of the way in which a tokenizer.json cuts texts into words.

llama.cpp's converter knows it by a hash of the ids of a text, which is another one for each vocabulary. Here the way
itself is looked at: what it makes of a text in which all ways that have a name differ.
"""

from sotol.tokenizers.bpe import CHARACTER_OF_BYTE
from sotol.tokenizers.hub.splitters import Split
from sotol.tokenizers.pretokenize import PRETOKENIZERS

__all__ = ["PROBE", "pretokenizer_name"]

# Contractions in both cases, words in mixed case, digits of several scripts in runs of one to seven, marks, symbols
# before and behind letters, spaces and ends of lines in all neighbourhoods, scripts without spaces.
PROBE = (
    "I'm we'Ll they'VE it's don't O'Neil 'twas ''s 'S x'd\n"
    "camelCase HTTPServer iPhone ABCdef \u01c5ep \u02b0aspirated na\u00efve cafe\u0301 e\u0301\u0302x 3rd v2.0beta4\n"
    "1 12 123 1234 12345 1234567 3.14159 1,000,000 \u0661\u0662\u0663\u0664\u0665 \u2167 \u00bd\u00b2 \uff11\uff12"
    "\uff13\uff14\n"
    "a/b//c /path/to/file\n/\n path=/\r\n http://x.y?z=1&w=%20#q\n"
    "  two   three\t\ttabs \t mixed\n\n\nlines\r\n\r\n  \n   indented\n\tcode(x[0], *args, **kw) -> {y: !z};\n"
    "!bang ?ask .dot -dash _under @at #tag $5 $x ^^ ~~ `tick` |pipe| <b>+=</b> \u00a1hola! \u201cquoted\u201d\u2014da"
    "sh\u2026 5+7=12\n"
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01 \u65e5\u672c\u8a9e\u3067\u3059\u304b\u3002\u30ab\u30bf\u30ab\u30ca abc"
    "\u6f22\u5b57def 123\u56db\u4e94 \ud55c\uad6d\uc5b4 \uc11c\uc6b8\uc2dc 4\uc6d4\n"
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u0394\u03bf\u03ba\u03b9\u03bc\u03ae \u05e9\u05dc\u05d5"
    "\u05dd \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35"
    " \u1797\u17b6\u179f\u17b6\n"
    "\U0001f600\U0001f44d\U0001f3fd \u2764\ufe0f \u20ac10 \u00a35 \u2192\u21d2 \u2211x\u00b2 \u0000null \u00a0nbsp"
    "\u2003em\u200bzero\n"
    "end of line spaces   \n   \n a  b   c    \n7 77 777 7777 tail   "
)  # fmt: skip


def pretokenizer_name(split: Split, *, whole_words: bool) -> str | None:
    """The name of the row that cuts texts as this does, and takes tokens as words before merging or not; None if"
    " none"

    split: gives words in GPT-2's alphabet, as byte-level vocabularies have them.
    """
    words = split([PROBE], True)
    for name, row in PRETOKENIZERS.items():
        if row.whole_words == whole_words and [_spelled(word) for word in row.split(PROBE)] == words:
            return name
    return None


def _spelled(word: str) -> str:
    return "".join(map(CHARACTER_OF_BYTE.__getitem__, word.encode()))
