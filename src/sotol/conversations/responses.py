"""Responses of an API in the user's database, to be fetched and continued after a restart.

A response is kept with the input of its own request and the id of the one that it continues: a conversation of n
responses takes room for n. One that is deleted and was continued stays hidden, since those after it hold what it says;
it goes with the last of them.
"""

import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from sotol.conversations.file import DatabaseFile

__all__ = ["KeptResponse", "Responses"]

DAYS = 30  # without use, after which a response is forgotten, as by OpenAI's own service
DAY_MS = 86_400_000
# The chain of a response, the first of the conversation first.
CHAIN = """WITH RECURSIVE chain (id, previous, response, items, depth) AS (
    SELECT id, previous, response, items, 0 FROM responses WHERE id = ? AND owner = ? AND NOT hidden
    UNION ALL
    SELECT r.id, r.previous, r.response, r.items, depth + 1 FROM responses r JOIN chain ON r.id = chain.previous
) SELECT response, items FROM chain ORDER BY depth DESC"""


class KeptResponse(NamedTuple):
    """A response, the items of its conversation before its output, and how many of these are of its own request."""

    response: dict[str, Any]
    items: list[dict[str, Any]]
    own: int


class Responses:
    """Responses by their owners and ids."""

    def __init__(self, file: DatabaseFile) -> None:
        self._file = file

    def put(self, owner: str, response: dict[str, Any], own: Sequence[dict[str, Any]]) -> None:
        """Keep a response; own: the items of its request. Those that nobody used for long are forgotten."""
        now = time.time_ns() // 1_000_000
        values = (response["id"], owner, response.get("previous_response_id"), _json(response), _json(list(own)), now)
        with self._file.writing() as connection:
            connection.execute(
                "INSERT INTO responses (id, owner, previous, response, items, used) VALUES (?, ?, ?, ?, ?, ?)", values
            )
            connection.execute(
                "DELETE FROM responses WHERE used < ? AND id NOT IN"
                " (SELECT previous FROM responses WHERE previous IS NOT NULL)",
                (now - DAYS * DAY_MS,),
            )

    def get(self, owner: str, id_: str) -> KeptResponse | None:
        """A response, if the owner has it; it counts as used."""
        with self._file.writing() as connection:
            rows = [(json.loads(r), json.loads(i)) for r, i in connection.execute(CHAIN, (id_, owner))]
            if not rows:
                return None
            connection.execute("UPDATE responses SET used = ? WHERE id = ?", (time.time_ns() // 1_000_000, id_))
        items: list[dict[str, Any]] = []
        for response, own in rows[:-1]:
            items += [*own, *response["output"]]
        response, own = rows[-1]
        return KeptResponse(response, [*items, *own], len(own))

    def delete(self, owner: str, id_: str) -> bool:
        """Forget a response; whether there was one."""
        with self._file.writing() as connection:
            query = "UPDATE responses SET hidden = 1 WHERE id = ? AND owner = ? AND NOT hidden"
            found = connection.execute(query, (id_, owner)).rowcount > 0
            gone = 1
            while gone:  # a hidden one goes with the last that continues it
                gone = connection.execute(
                    "DELETE FROM responses WHERE hidden AND id NOT IN"
                    " (SELECT previous FROM responses WHERE previous IS NOT NULL)"
                ).rowcount
        return found


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
