"""Only living sessions are found."""

from gateway.domain.session import Session
from gateway.storage.database import Database
from gateway.usecases.find_session import living_session
from tests.gateway.usecases.rooms import refused


async def test_a_deleted_session_is_as_good_as_none(store: Database) -> None:
    session = Session("s", "default", "scripted/echo", 1, 1)
    await refused(store.read(lambda tx: living_session(tx, "s")), "SESSION_NOT_FOUND")
    await store.write(lambda tx: tx.sessions.insert(session))
    assert await store.read(lambda tx: living_session(tx, "s")) == session
    await store.write(lambda tx: tx.sessions.update(session._replace(deleted_ms=5)))
    await refused(store.read(lambda tx: living_session(tx, "s")), "SESSION_NOT_FOUND")
