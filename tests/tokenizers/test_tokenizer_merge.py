"""The merge loop against its definition: join the best pair, the leftmost among equals, until none is left."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sotol.tokenizers.merge import SCAN_LIMIT, merge

LETTERS = "abc"
PARTS = st.text(LETTERS, min_size=1, max_size=3)


def naive(symbols: list[str], ranks: dict[str, int], between: str) -> list[str]:
    while True:
        pairs = [(ranks[key], i) for i in range(len(symbols) - 1) if (key := between.join(symbols[i : i + 2])) in ranks]
        if not pairs:
            return symbols
        _, i = min(pairs)
        symbols = [*symbols[:i], symbols[i] + symbols[i + 1], *symbols[i + 2 :]]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    ranks=st.dictionaries(st.tuples(PARTS, PARTS).map(" ".join), st.integers(0, 9), max_size=25),
    text=st.text(LETTERS, max_size=40) | st.text(LETTERS, min_size=SCAN_LIMIT - 2, max_size=150),
)
def test_pairs_as_in_bpe(ranks: dict[str, int], text: str) -> None:
    assert merge(list(text), ranks, " ") == naive(list(text), ranks, " ")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    ranks=st.dictionaries(st.text(LETTERS, min_size=2, max_size=5), st.integers(0, 5), max_size=25),
    text=st.text(LETTERS, max_size=40) | st.text(LETTERS, min_size=SCAN_LIMIT - 2, max_size=150),
)
def test_joined_tokens_as_in_sentencepiece(ranks: dict[str, int], text: str) -> None:
    assert merge(list(text), ranks, "") == naive(list(text), ranks, "")
