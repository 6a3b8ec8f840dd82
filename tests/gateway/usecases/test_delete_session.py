"""Deleting hides a session and ends what goes on in it; restoring undoes that."""

from collections.abc import Awaitable, Callable

import pytest

from gateway.storage.database import Database
from gateway.usecases.delete_session import DeleteSession
from gateway.usecases.live_sessions import LiveSession, LiveSessions
from gateway.usecases.manage_sessions import ManageSessions, SessionChange
from tests.gateway.usecases.rooms import StillClock, Talk, refused, texts


class Ends:
    """Stands for what ends turns; sees what is stored by then."""

    def __init__(self, sessions: ManageSessions) -> None:
        self.sessions = sessions
        self.calls: list[tuple[str, bool]] = []
        self.failure: Exception | None = None
        self.then: Callable[[], Awaitable[object]] | None = None

    async def __call__(self, live: LiveSession) -> None:
        await refused(self.sessions.get(live.session_id), "SESSION_NOT_FOUND")
        self.calls.append((live.session_id, live.deleted))
        if self.then:
            await self.then()
        if self.failure:
            raise self.failure


@pytest.fixture
def ends(sessions: ManageSessions) -> Ends:
    return Ends(sessions)


@pytest.fixture
def delete_session(store: Database, live: LiveSessions, clock: StillClock, ends: Ends) -> DeleteSession:
    return DeleteSession(store=store, live=live, clock=clock, end_turns=ends)


async def test_deleted_is_hidden_and_comes_back_whole(
    sessions: ManageSessions, delete_session: DeleteSession, store: Database, talk: Talk, clock: StillClock
) -> None:
    made = await sessions.create("", SessionChange("mine"))
    await store.write(lambda tx: talk(tx, made, "a"))
    clock.ms += 7
    gone = await delete_session.delete(made.key)
    assert gone.deleted_ms == clock.ms
    await refused(sessions.get(made.session_id), "SESSION_NOT_FOUND")
    await refused(sessions.list_messages(made.session_id, 0, ""), "SESSION_NOT_FOUND")
    await refused(sessions.update(made.session_id, SessionChange("x"), ["title"], ""), "SESSION_NOT_FOUND")
    assert (await sessions.list_sessions(0, "")).items == ()
    assert (await sessions.list_sessions(0, "", deleted=True)).items == (gone,)
    back = await delete_session.restore(made.key)
    assert (back.deleted_ms, back.title, back.message_count) == (0, "mine", 2)
    assert await sessions.get(made.session_id) == back
    assert texts((await sessions.list_messages(made.session_id, 0, "")).items) == "a A"


async def test_twice_is_no_error_and_changes_nothing(
    sessions: ManageSessions, delete_session: DeleteSession, clock: StillClock
) -> None:
    made = await sessions.create("", SessionChange())
    assert await delete_session.restore(made.session_id) == made
    gone = await delete_session.delete(made.session_id)
    clock.ms += 1
    assert await delete_session.delete(made.session_id) == gone


async def test_what_never_was_is_not_found(delete_session: DeleteSession) -> None:
    await refused(delete_session.delete("V1StGXR8_Z5jdHi6B-myT"), "SESSION_NOT_FOUND")
    await refused(delete_session.restore("V1StGXR8_Z5jdHi6B-myT"), "SESSION_NOT_FOUND")


async def test_turns_end_after_the_commit_and_watchers_hear_last(
    sessions: ManageSessions, delete_session: DeleteSession, live: LiveSessions, ends: Ends
) -> None:
    made = await sessions.create("", SessionChange())
    held = await live.acquire(made.session_id)
    woken: list[bool] = []

    class Watcher:
        def wake(self, soon: bool) -> None:
            woken.append(held.deleted)

        def pulse(self, now: float) -> None: ...

    held.watchers.add(Watcher())
    await delete_session.delete(made.session_id)
    assert ends.calls == [(made.session_id, False)]
    assert woken == [True]
    await refused(live.acquire(made.session_id), "SESSION_NOT_FOUND")
    await delete_session.restore(made.session_id)
    again = await live.acquire(made.session_id)
    assert again is held
    live.release(again)
    live.release(held)


async def test_a_restore_holds_that_came_while_the_turns_ended(
    sessions: ManageSessions, delete_session: DeleteSession, live: LiveSessions, ends: Ends
) -> None:
    made = await sessions.create("", SessionChange())
    held = await live.acquire(made.session_id)
    ends.then = lambda: delete_session.restore(made.session_id)
    await delete_session.delete(made.session_id)
    live.release(await live.acquire(made.session_id))
    live.release(held)


async def test_a_delete_that_was_given_up_is_finished_by_the_next(
    sessions: ManageSessions, delete_session: DeleteSession, live: LiveSessions, ends: Ends
) -> None:
    made = await sessions.create("", SessionChange())
    held = await live.acquire(made.session_id)
    ends.failure = TimeoutError()
    with pytest.raises(TimeoutError):
        await delete_session.delete(made.session_id)
    ends.failure = None
    await delete_session.delete(made.session_id)
    assert len(ends.calls) == 2
    live.release(held)
    assert live.find(made.session_id) is None
