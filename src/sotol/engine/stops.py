"""Stop strings in streamed text: which text can be released already, and where the text ends.

All strings are searched at once with the automaton of Aho and Corasick (1975, "Efficient string matching"), character
by character: the work is linear in the text, however it is cut into pieces and however many strings there are. A stop
may contain hidden tokens, which answers do not show: each is one symbol between the characters.
"""

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

__all__ = ["StopMatcher"]

Symbol: TypeAlias = str | int  # a character, or the id of a token


class StopMatcher:
    """Finds the stop that is completed first (the longest, if several end there) in text that comes in pieces.

    The text before it is released as early as possible: only what may be the beginning of a stop is held back. `found`
    is the number of the stop, once it is found; of equal ones, the last.
    """

    def __init__(self, stops: Sequence[str | Sequence[str | int]]) -> None:
        """stops: strings, or lists of text and ids of hidden tokens. ValueError for an empty one."""
        # nodes of a trie of the stops; node 0 is the root
        self._next: list[dict[Symbol, int]] = [{}]
        self._depth = [0]
        self._longest = [0]  # the length of the longest stop that ends here
        self._which = [0]  # its number
        self.found: int | None = None
        for number, stop in enumerate(stops):
            symbols = [symbol for piece in stop for symbol in ([piece] if isinstance(piece, int) else piece)]
            if not symbols:
                raise ValueError("a stop string is empty")
            node = 0
            for symbol in symbols:
                if symbol not in self._next[node]:
                    self._next[node][symbol] = len(self._next)
                    self._next.append({})
                    self._depth.append(self._depth[node] + 1)
                    self._longest.append(0)
                    self._which.append(0)
                node = self._next[node][symbol]
            self._longest[node], self._which[node] = len(symbols), number
        self._link()
        self._tokens = {symbol for following in self._next for symbol in following if isinstance(symbol, int)}
        self._node = 0
        self._held: list[Symbol] = []  # the last depth[node]: the longest end of the text that begins a stop
        self._stopped = False

    def _link(self) -> None:
        """For each node, breadth first, the node of its longest proper suffix that is in the trie."""
        self._suffix = [0] * len(self._next)
        queue = deque(self._next[0].values())
        while queue:
            node = queue.popleft()
            if not self._longest[node]:
                suffix = self._suffix[node]
                self._longest[node], self._which[node] = self._longest[suffix], self._which[suffix]
            for symbol, child in self._next[node].items():
                self._suffix[child] = self._step(self._suffix[node], symbol)
                queue.append(child)

    def _step(self, node: int, symbol: Symbol) -> int:
        while node and symbol not in self._next[node]:
            node = self._suffix[node]
        return self._next[node].get(symbol, 0)

    def push(self, text: str, token: int | None = None) -> tuple[str, bool]:
        """Take the next piece of text, and the token that it comes from, in case that is a hidden one.

        Returns the text that can be released now, and whether a stop was found; after that, all input is ignored.
        """
        if self._stopped or len(self._next) == 1:
            return ("" if self._stopped else text), self._stopped
        new = [*text, *([token] if token in self._tokens else [])]
        seen = self._held + new
        for end, symbol in enumerate(new, start=len(self._held) + 1):
            self._node = self._step(self._node, symbol)
            if found := self._longest[self._node]:
                self._stopped, self._held, self.found = True, [], self._which[self._node]
                return _shown(seen[: end - found]), True
        released = len(seen) - self._depth[self._node]
        self._held = seen[released:]
        return _shown(seen[:released]), False

    def finish(self) -> str:
        """The text ends here: returns what was held back; nothing if a stop was found."""
        held, self._held, self._node = self._held, [], 0
        return _shown(held)


def _shown(symbols: Sequence[Symbol]) -> str:
    return "".join(symbol for symbol in symbols if isinstance(symbol, str))
