"""A tokenizer.json's way from plain text to ids: normalizer, added tokens in the normalized text, words, model."""

from collections.abc import Mapping

from sotol.tokenizers.hub.models import EncodeWord
from sotol.tokenizers.hub.normalizers import Normalize
from sotol.tokenizers.hub.splitters import Split
from sotol.tokenizers.kinds import Added, placed
from sotol.tokenizers.special import LongestMatcher
from sotol.tokenizers.words import WordCache

__all__ = ["HubEncoder"]


class HubEncoder:
    """Text without control tokens to ids. Tokens that are found in the text as it is are found before, by `Tokenizer`.

    normalized: added tokens that are found in the normalized text: text -> id. added: how, where that matters.
    """

    def __init__(
        self, normalize: Normalize | None, split: Split | None, model: EncodeWord,
        normalized: Mapping[str, int], added: Mapping[int, Added],
    ) -> None:  # fmt: skip
        self._normalize, self._split, self._cache = normalize, split, WordCache(model)
        same = normalized if normalize is None else {normalize(text): token for text, token in normalized.items()}
        self._texts, self._added = {text: token for text, token in same.items() if text}, added
        self._matcher = LongestMatcher(self._texts) if self._texts else None

    def encode(self, text: str) -> list[int]:
        """The ids of a text from its beginning."""
        return self._encode(text, True)

    def encode_after(self, text: str) -> list[int]:
        """The ids of a text behind an added token."""
        return self._encode(text, False)

    def _encode(self, text: str, first: bool) -> list[int]:
        if self._normalize is not None:
            text = self._normalize(text)
        if self._matcher is None:
            return self._words(text, first)
        ids, end = list[int](), 0
        for start, stop, token in placed(text, self._matcher.find(text), self._texts, self._added):
            ids += self._words(text[end:start], first and end == 0)
            ids.append(token)
            end = stop
        return ids + self._words(text[end:], first and end == 0)

    def _words(self, text: str, first: bool) -> list[int]:
        if not text:
            return []
        return self._cache.encode([text] if self._split is None else self._split([text], first))
