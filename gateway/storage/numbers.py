"""Numbers: the row numbers behind the ids of sessions and turns, and where a session's next message goes. Used by the
repositories that write.

No row of the two is ever removed and no number ever changes, so the writer, who is the only one, remembers them, and
finds what it wrote a moment ago without another look at an index. A rollback may give a number to somebody else, and a
compaction moves the place: then everything is forgotten.
"""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import select

from gateway.domain.error import GatewayError, session_not_found, turn_not_found
from gateway.storage.statement import Link, Statement, value
from gateway.storage.tables import sessions, turns

REMEMBERED = 500
"""How many of each are kept before all are looked up afresh: a turn needs its own from its beginning to its end."""

_SESSION = Statement(select(sessions.c.session_no).where(sessions.c.session_id == value("session_id")), "session_id")
_TURN = Statement(select(turns.c.turn_no).where(turns.c.turn_id == value("turn_id")), "turn_id")

K = TypeVar("K")
V = TypeVar("V")


class Numbers:
    """Remembers until `forget`. Statements that insert a session, a turn or a message tell of it."""

    __slots__ = ("_link", "_places", "_sessions", "_turns")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._sessions: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._places: dict[int, tuple[int, int]] = {}

    def session(self, session_id: str) -> int:
        """The number of a session. Raises SESSION_NOT_FOUND."""
        return self._sessions.get(session_id) or self._find(self._sessions, _SESSION, session_id, session_not_found)

    def turn(self, turn_id: str) -> int:
        """The number of a turn. Raises TURN_NOT_FOUND."""
        return self._turns.get(turn_id) or self._find(self._turns, _TURN, turn_id, turn_not_found)

    def _find(
        self, known: dict[str, int], statement: Statement, name: str, missing: Callable[[str], GatewayError]
    ) -> int:
        row = self._link.one(statement, name)
        if row is None:
            raise missing(name)
        number: int = row[0]
        return _remember(known, name, number)

    def place(self, session_no: int) -> tuple[int, int] | None:
        """The generation and the position of a session's next message, if that is known."""
        return self._places.get(session_no)

    def session_is(self, session_id: str, number: int) -> None:
        """A session was written under this number."""
        _remember(self._sessions, session_id, number)

    def turn_is(self, turn_id: str, number: int) -> None:
        """A turn was written under this number."""
        _remember(self._turns, turn_id, number)

    def place_is(self, session_no: int, generation: int, position: int) -> None:
        """There the session's next message goes."""
        _remember(self._places, session_no, (generation, position))

    def forget(self) -> None:
        """Something that was written does not count, or not any more."""
        self._sessions.clear()
        self._turns.clear()
        self._places.clear()


def _remember(known: dict[K, V], name: K, what: V) -> V:
    if len(known) >= REMEMBERED:
        known.clear()
    known[name] = what
    return what
