"""Streaming decoder: text from tokens one by one, never half a character; in sum the same as decoding all at once."""

from codecs import getincrementaldecoder

from sotol.tokenizers.tokenizer import Tokenizer

__all__ = ["StreamDecoder"]


class StreamDecoder:
    """Decodes one sequence. `special` and `continued` are those of `Tokenizer.decode`.

    shown: ids of control tokens that are shown also without `special`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        special: bool = False,
        continued: bool = False,
        shown: frozenset[int] = frozenset(),
    ) -> None:
        self._tokenizer = tokenizer
        self._special, self._shown = special, shown
        self._drop_space = tokenizer.space_prefix and not continued
        self._decoder = getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        data = self._tokenizer.token_bytes(token, special=self._special or token in self._shown)
        if data and self._drop_space:
            data = data.removeprefix(b" ")
            self._drop_space = False
        return self._decoder.decode(data)

    def finish(self) -> str:
        """The rest: U+FFFD for an incomplete character, else nothing."""
        return self._decoder.decode(b"", final=True)
