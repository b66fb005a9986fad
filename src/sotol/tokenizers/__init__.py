"""Text to token ids and back: byte-level BPE, SentencePiece's BPE, and decoding piece by piece."""

from sotol.tokenizers.stream import StreamDecoder
from sotol.tokenizers.tokenizer import Tokenizer

__all__ = ["StreamDecoder", "Tokenizer"]
