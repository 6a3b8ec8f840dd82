"""Numbers: the row numbers behind the ids of sessions and turns. Used by the repositories that write.

No row of the two is ever removed and no number ever changes, so the writer remembers them, and finds what it wrote a
moment ago without another look at an index. Only a rollback may give a number to somebody else: then all are forgotten.
"""

from sqlalchemy import select

from gateway.domain.error import session_not_found, turn_not_found
from gateway.storage.statement import Link, Statement, value
from gateway.storage.tables import sessions, turns

REMEMBERED = 10_000
"""How many of each are kept, some 200 bytes each, before all are looked up afresh."""

_SESSION = Statement(select(sessions.c.session_no).where(sessions.c.session_id == value("session_id")), "session_id")
_TURN = Statement(select(turns.c.turn_no).where(turns.c.turn_id == value("turn_id")), "turn_id")


class Numbers:
    """Remembers until `forget`. Statements that insert a session or a turn tell of it."""

    __slots__ = ("_link", "_sessions", "_turns")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._sessions: dict[str, int] = {}
        self._turns: dict[str, int] = {}

    def session(self, session_id: str) -> int:
        """The number of a session. Raises SESSION_NOT_FOUND."""
        number = self._sessions.get(session_id)
        if number is None:
            row = self._link.one(_SESSION, session_id)
            if row is None:
                raise session_not_found(session_id)
            number = self.session_is(session_id, row[0])
        return number

    def turn(self, turn_id: str) -> int:
        """The number of a turn. Raises TURN_NOT_FOUND."""
        number = self._turns.get(turn_id)
        if number is None:
            row = self._link.one(_TURN, turn_id)
            if row is None:
                raise turn_not_found(turn_id)
            number = self.turn_is(turn_id, row[0])
        return number

    def session_is(self, session_id: str, number: int) -> int:
        """Remember a session; returns its number."""
        return _remember(self._sessions, session_id, number)

    def turn_is(self, turn_id: str, number: int) -> int:
        """Remember a turn; returns its number."""
        return _remember(self._turns, turn_id, number)

    def forget(self) -> None:
        """Something that was written does not count."""
        self._sessions.clear()
        self._turns.clear()


def _remember(known: dict[str, int], name: str, number: int) -> int:
    if len(known) >= REMEMBERED:
        known.clear()
    known[name] = number
    return number
