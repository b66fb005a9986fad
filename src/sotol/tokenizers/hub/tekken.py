"""Reads tekken.json, the tokenizer file of Mistral's own repositories, for folders without a tokenizer.json.

Byte-level BPE without a list of merges: of two neighbours whose joint bytes are a token, those with the lowest rank go
first, as in tiktoken. Special tokens have the first ids, and there are more ids for such than there are names. What
the fields mean is from mistral-common (https://github.com/mistralai/mistral-common, tokens/tokenizers/tekken.py).
"""

import base64
import binascii
from collections.abc import Mapping

import numpy as np

from sotol.errors import FormatError, ModelError, plain
from sotol.tokenizers.bpe import CHARACTER_OF_BYTE
from sotol.tokenizers.hub.decoders import Decoding
from sotol.tokenizers.hub.encoder import HubEncoder
from sotol.tokenizers.hub.models import EncodeWord
from sotol.tokenizers.hub.parts import Part, Unsupported
from sotol.tokenizers.hub.splitters import Split, read_splitter
from sotol.tokenizers.kinds import TokenizerModel
from sotol.tokenizers.merge import merge
from sotol.tokenizers.roles import FILL_ENDS, TokenTexts, TokenType, ends_of_generation
from sotol.tokenizers.vocabulary import Vocabulary

__all__ = ["read_tekken"]

MAX_TOKENS = 1 << 22
# Of files that do not name them: the first special tokens, in order.
SPECIAL = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
BOS, EOS = "<s>", "</s>"


def read_tekken(given: Mapping[str, object], file: str) -> tuple[Vocabulary, TokenizerModel]:
    """The tokenizer of a parsed file. FormatError names the field that is wrong."""
    config = Part.of(given.get("config"), file, "config")
    count, reserved = config.whole("default_vocab_size", 0), config.whole("default_num_special_tokens", 0)
    special = _special(given.get("special_tokens"), reserved, file)
    ordinary = _ordinary(given.get("vocab"), count - reserved, file)
    texts = [*special, *ordinary]
    tokens = TokenTexts(texts, dict(zip(reversed(texts), range(len(texts) - 1, -1, -1), strict=True)))
    types = np.full(len(texts), TokenType.NORMAL, np.int8)
    types[:reserved] = TokenType.CONTROL
    named: dict[str, int | None] = dict.fromkeys(("eot", "eom", "unknown", *FILL_ENDS))
    named |= {"bos": tokens.ids.get(BOS), "eos": tokens.ids.get(EOS)}
    encoder = HubEncoder(None, _split(config), _by_rank(ordinary, reserved), {}, {})
    vocabulary = Vocabulary(
        model="tekken",
        pre="",
        tokens=texts,
        types=types,
        scores=np.empty(0),
        merges=[],
        ids=tokens.ids,
        bos=named["bos"],
        eos=named["eos"],
        unknown=None,
        end_of_generation=ends_of_generation(tokens, types, named),
        add_bos=None,
        add_eos=None,
        add_space_prefix=None,
        source=file,
        remarks=(),
    )
    around = ((), ()) if vocabulary.bos is None else ((vocabulary.bos,), ())
    decoding = Decoding(byte_level=True)
    return vocabulary, TokenizerModel(encoder, decoding.bytes_of, add_bos=False, space_prefix=False, around=around)


def _split(config: Part) -> Split | None:
    """The file's expression, and then bytes as characters."""
    split = {"type": "Split", "pattern": {"Regex": config.text("pattern")}, "behavior": "Isolated"}
    spelled = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    try:
        return read_splitter(Part({"type": "Sequence", "pretokenizers": [split, spelled]}, config.file, "config"))
    except Unsupported as missing:
        raise ModelError(f"{config.file}: sotol does not support {missing}") from None


def _special(given: object, reserved: int, file: str) -> list[str]:
    """The texts of all special tokens; those without a name have their number."""
    if reserved > MAX_TOKENS:
        raise FormatError(f"{file}: config.default_num_special_tokens is {reserved}, more than sotol accepts")
    names = dict(enumerate(SPECIAL))
    if given is not None:
        if not isinstance(given, list):
            raise FormatError(f"{file}: special_tokens is not a list")
        parts = [Part.of(item, file, f"special_tokens[{i}]") for i, item in enumerate(given)]
        names = {part.whole("rank", i): part.text("token_str") for i, part in enumerate(parts)}
    if reserved > 64 * max(len(names), 20):
        raise FormatError(f"{file}: config.default_num_special_tokens is {reserved} for {len(names)} names")
    return [names.get(i) or f"<SPECIAL_{i}>" for i in range(reserved)]


def _ordinary(given: object, count: int, file: str) -> list[str]:
    """The ordinary tokens in the order of their ranks, bytes as GPT-2's characters; as many as the config says."""
    if not isinstance(given, list) or not 256 <= count <= len(given):
        size = len(given) if isinstance(given, list) else 0
        raise FormatError(f"{file}: vocab has {size} tokens, and config asks for {count}; the first 256 are bytes")
    texts = list[str]()
    for i, item in enumerate(given[:count]):
        said, rank = (item.get("token_bytes"), item.get("rank")) if isinstance(item, dict) else (None, None)
        try:
            data = base64.b64decode(said, validate=True) if isinstance(said, str) else b""
        except (binascii.Error, ValueError):
            data = b""
        if not data or rank != i:
            raise FormatError(f"{file}: vocab[{i}] is {plain(repr(item), 80)}, not the bytes of rank {i}")
        texts.append("".join(map(CHARACTER_OF_BYTE.__getitem__, data)))
    if len(set(texts)) < len(texts) or set(texts[:256]) != set(CHARACTER_OF_BYTE):
        raise FormatError(f"{file}: vocab has a token twice, or does not begin with all bytes")
    return texts


def _by_rank(ordinary: list[str], reserved: int) -> EncodeWord:
    """Ids of spelled words: a word that is a token as it is, others by merging."""
    ranks = {text: rank for rank, text in enumerate(ordinary)}

    def encode(word: str) -> list[int]:
        if word in ranks:
            return [reserved + ranks[word]]
        return [reserved + ranks[symbol] for symbol in merge(list(word), ranks, "")]

    return encode
