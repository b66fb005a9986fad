"""Stop strings in streamed text: what can be shown already, and where the text ends.

All strings are looked for at once with the automaton of Aho and Corasick (1975, "Efficient string matching"), a
character at a time, so the work is linear in the text however it is cut into pieces and however many strings there are.
"""

from collections import deque
from collections.abc import Sequence

__all__ = ["StopMatcher"]


class StopMatcher:
    """Finds the stop string that is completed first (the longest, if several end there) in text that comes in pieces.

    The text before it is released, as early as possible: held back is only what may be the beginning of a stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Raises ValueError for an empty stop string."""
        if "" in stops:
            raise ValueError("a stop string is empty")
        # nodes of a trie of the strings; node 0 is the root
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._longest = [0]  # the length of the longest stop string that ends here
        for stop in stops:
            node = 0
            for character in stop:
                if character not in self._next[node]:
                    self._next[node][character] = len(self._next)
                    self._next.append({})
                    self._depth.append(self._depth[node] + 1)
                    self._longest.append(0)
                node = self._next[node][character]
            self._longest[node] = len(stop)
        self._link()
        self._node = 0
        self._held = ""  # the last depth[node] characters: the longest end of the text that begins a stop string
        self._stopped = False

    def _link(self) -> None:
        """For each node, breadth first, the node of its longest proper suffix that is in the trie."""
        self._suffix = [0] * len(self._next)
        queue = deque(self._next[0].values())
        while queue:
            node = queue.popleft()
            self._longest[node] = max(self._longest[node], self._longest[self._suffix[node]])
            for character, child in self._next[node].items():
                self._suffix[child] = self._step(self._suffix[node], character)
                queue.append(child)

    def _step(self, node: int, character: str) -> int:
        while node and character not in self._next[node]:
            node = self._suffix[node]
        return self._next[node].get(character, 0)

    def push(self, text: str) -> tuple[str, bool]:
        """Take the next piece; returns the text that can be released now, and whether a stop string was found.

        After that, further pieces are ignored.
        """
        if self._stopped or len(self._next) == 1:
            return ("" if self._stopped else text), self._stopped
        seen = self._held + text
        for end, character in enumerate(text, start=len(self._held) + 1):
            self._node = self._step(self._node, character)
            if found := self._longest[self._node]:
                self._stopped, self._held = True, ""
                return seen[: end - found], True
        released = len(seen) - self._depth[self._node]
        self._held = seen[released:]
        return seen[:released], False

    def finish(self) -> str:
        """The text ends here: returns what was held back. A found stop string leaves nothing."""
        held, self._held, self._node = self._held, "", 0
        return held
