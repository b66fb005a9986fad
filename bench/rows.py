"""What is measured: the rows of the table, in groups that share one loaded engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sotol.cli.workload import pseudo_random_ids

__all__ = ["GROUPS", "MEMORY", "ROWS", "START", "TOKENIZE", "Group", "Row"]

START = "first token after 16, from process start"
TOKENIZE = "tokenise 1 MB of text on one thread"
MEMORY = "peak memory"
ANSWER_SEED = 1000  # ids of prompts have smaller ones


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens per second of prompts (steps is 0), or of steps with a token for each sequence behind a prompt."""

    name: str
    prompt: int  # tokens of each
    steps: int = 0
    sequences: int = 1
    busy: bool = False  # with one more busy process than there are idle cores
    bound: bool = False  # by memory: a plain read is measured too

    @property
    def tokens(self) -> int:
        """How many are timed."""
        return self.steps * self.sequences or self.prompt

    def command(self, vocabulary: int, number: int) -> Mapping[str, Any]:
        """What an engine is told in a round. Prompts to be timed differ from round to round: some engines keep them."""
        if not self.steps:
            return {"prefill": pseudo_random_ids(self.prompt, vocabulary, seed=number + 1)}
        prompts = [pseudo_random_ids(self.prompt, vocabulary, seed=i + 101) for i in range(self.sequences)]
        answers = [pseudo_random_ids(self.sequences, vocabulary, seed=ANSWER_SEED + i) for i in range(self.steps)]
        return {"prompts": prompts, "answers": answers}


@dataclass(frozen=True, slots=True)
class Group:
    """Rows for which engines are loaded once."""

    context: int  # tokens of a sequence
    sequences: int
    rows: tuple[Row, ...]
    memory: bool = False  # peak memory is asked for when all has run


GROUPS = (
    Group(
        1024,
        1,
        (
            Row("prefill 512", 512),
            Row("decode 64 after 8", 8, 64, bound=True),
            Row("decode 64 after 512", 512, 64),
            Row("decode 32 after 8, beside a busy process", 8, 32, busy=True),
        ),
        memory=True,
    ),
    Group(8192, 1, (Row("prefill 4096", 4096), Row("decode 64 after 8128", 8128, 64))),
    Group(
        128,
        64,
        tuple(Row(f"decode {count} sequences", 64, 32, count) for count in (8, 16, 64)),
    ),
)
ROWS = (*(row.name for group in GROUPS for row in group.rows), MEMORY, START, TOKENIZE)
