"""DeleteSession: hides a session and ends its turns, or brings it back. Called by rpc's session service."""

from collections.abc import Awaitable, Callable

from gateway.domain.error import session_not_found
from gateway.domain.ids import resolve_session
from gateway.domain.session import Session
from gateway.usecases.live_sessions import LiveSession, LiveSessions
from gateway.usecases.ports import Clock, Store, Transaction

EndTurns = Callable[[LiveSession], Awaitable[object]]
"""Ends a session's running and queued turns and returns when their ends are stored."""


class DeleteSession:
    """Deletes and restores. Both are idempotent, and nothing of the session is lost by either."""

    def __init__(self, *, store: Store, live: LiveSessions, clock: Clock, end_turns: EndTurns) -> None:
        self._store = store
        self._live = live
        self._clock = clock
        self._end_turns = end_turns

    async def delete(self, reference: str) -> Session:
        """Hide the session. From the commit on it takes no message; then its turns end; then its watchers are told.

        Raises SESSION_NOT_FOUND when it never existed.
        """
        session_id = resolve_session(reference)
        session = await self._store.write(lambda tx: self._set_deleted(tx, session_id, self._clock.now_ms()))
        # Also on a repeated call: the one before may have been given up between the commit and here.
        live = self._live.find(session_id)
        if live is None:
            self._live.changed(session_id)
        else:
            live.users += 1
            live.deletion = session.revision
            try:
                await self._end_turns(live)
            finally:
                if live.deletion == session.revision:
                    # Otherwise it was restored while its turns ended.
                    live.deleted = True
                    live.notify()
                self._live.release(live)
        return session

    async def restore(self, reference: str) -> Session:
        """Bring the session back with everything it had. Raises SESSION_NOT_FOUND when it never existed."""
        session_id = resolve_session(reference)
        session = await self._store.write(lambda tx: self._set_deleted(tx, session_id, 0))
        live = self._live.find(session_id)
        if live is not None:
            live.deleted = False
            live.deletion = session.revision
        return session

    def _set_deleted(self, tx: Transaction, session_id: str, deleted_ms: int) -> Session:
        session = tx.sessions.get(session_id)
        if session is None:
            raise session_not_found(session_id)
        if bool(session.deleted_ms) == bool(deleted_ms):
            return session
        session = session._replace(
            deleted_ms=deleted_ms, revision=session.revision + 1, updated_ms=self._clock.now_ms()
        )
        tx.sessions.update(session)
        return session
