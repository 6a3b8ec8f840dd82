"""Finds a session that is not deleted, in a transaction. Called by the use cases that work on one session."""

from gateway.domain.error import session_not_found
from gateway.domain.session import Session
from gateway.usecases.ports import Transaction


def living_session(tx: Transaction, session_id: str) -> Session:
    """The session. Raises SESSION_NOT_FOUND when there is none or it is deleted."""
    session = tx.sessions.get(session_id)
    if session is None or session.deleted_ms:
        raise session_not_found(session_id)
    return session
