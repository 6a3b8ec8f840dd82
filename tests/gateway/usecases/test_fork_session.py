"""A fork has the history, and nothing else of the old session."""

import pytest

from gateway.domain.context import sendable
from gateway.ids import NanoIds
from gateway.storage.database import Database
from gateway.usecases.fork_session import ForkSession
from gateway.usecases.manage_sessions import ManageSessions, SessionChange
from tests.gateway.usecases.rooms import StillClock, Talk, refused, texts


@pytest.fixture
def fork_session(store: Database, clock: StillClock) -> ForkSession:
    return ForkSession(store=store, clock=clock, ids=NanoIds(clock))


async def test_a_fork_ends_with_the_message_named(
    sessions: ManageSessions, fork_session: ForkSession, store: Database, talk: Talk, clock: StillClock
) -> None:
    made = await sessions.create("me", SessionChange("mine", "scripted/count", "be kind"))
    messages = await store.write(lambda tx: talk(tx, made, "a b c"))
    clock.ms += 9
    fork = await fork_session(made.key, messages[3].message_id)
    assert (fork.agent_id, fork.model, fork.title, fork.system_prompt) == ("me", "scripted/count", "mine", "be kind")
    assert (fork.forked_from, fork.message_count, fork.created_ms) == (made.session_id, 4, clock.ms)
    assert (fork.epoch, fork.last_seq, fork.generation) == (1, 0, 1)
    assert await sessions.get(fork.session_id) == fork
    copies = (await sessions.list_messages(fork.session_id, 0, "")).items
    assert texts(copies) == "a A b B"
    assert not {copy.message_id for copy in copies} & {message.message_id for message in messages}
    assert [entry.text for entry in sendable(copies)] == ["a", "A", "b", "B"]
    assert await store.read(lambda tx: tx.turns.page(fork.session_id, after=None, limit=9)) == []
    assert await store.read(lambda tx: tx.usage.totals(fork.session_id)) == {}


async def test_without_a_message_all_are_copied_and_both_go_their_way(
    sessions: ManageSessions, fork_session: ForkSession, store: Database, talk: Talk
) -> None:
    made = await sessions.create("", SessionChange("mine"))
    await store.write(lambda tx: talk(tx, made, "a b?"))
    fork = await fork_session(made.session_id, title="yours")
    assert fork.title == "yours"
    await store.write(lambda tx: talk(tx, fork, "c"))
    assert texts((await sessions.list_messages(fork.session_id, 0, "")).items) == "a A b? c C"
    assert texts((await sessions.list_messages(made.session_id, 0, "")).items) == "a A b?"


async def test_an_empty_session_can_be_forked(sessions: ManageSessions, fork_session: ForkSession) -> None:
    made = await sessions.create("", SessionChange())
    assert (await fork_session(made.session_id)).message_count == 0


async def test_what_is_not_there_is_not_forked(
    sessions: ManageSessions, fork_session: ForkSession, store: Database, talk: Talk
) -> None:
    made, other = [await sessions.create("", SessionChange()) for _ in range(2)]
    elsewhere = await store.write(lambda tx: talk(tx, other, "a"))
    await refused(fork_session(made.session_id, elsewhere[0].message_id), "MESSAGE_NOT_FOUND")
    await refused(fork_session("V1StGXR8_Z5jdHi6B-myT"), "SESSION_NOT_FOUND")
    await refused(fork_session(made.session_id, title="x" * 201), "INVALID_MESSAGE")
    assert len((await sessions.list_sessions(0, "")).items) == 2
