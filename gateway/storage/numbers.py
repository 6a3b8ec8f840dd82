"""Numbers: the row numbers behind the ids of sessions and turns. Used by the repositories that write.

No row of the two is ever removed and no number ever changes, so the writer remembers them, and finds what it wrote a
moment ago without another look at an index. Only a rollback may give a number to somebody else: then all are forgotten.
"""

from collections.abc import Callable

from sqlalchemy import select

from gateway.domain.error import GatewayError, session_not_found, turn_not_found
from gateway.storage.statement import Link, Statement, value
from gateway.storage.tables import sessions, turns

REMEMBERED = 500
"""How many of each are kept before all are looked up afresh: a turn needs its own from its beginning to its end."""

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
        return _remember(known, name, row[0])

    def session_is(self, session_id: str, number: int) -> None:
        """A session was written under this number."""
        _remember(self._sessions, session_id, number)

    def turn_is(self, turn_id: str, number: int) -> None:
        """A turn was written under this number."""
        _remember(self._turns, turn_id, number)

    def forget(self) -> None:
        """Something that was written does not count."""
        self._sessions.clear()
        self._turns.clear()


def _remember(known: dict[str, int], name: str, number: int) -> int:
    if len(known) >= REMEMBERED:
        known.clear()
    known[name] = number
    return number
