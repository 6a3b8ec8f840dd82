"""Sessions: opened, read, listed and changed."""

import pytest

from gateway.domain.session import Session
from gateway.storage.database import Database
from gateway.usecases.manage_sessions import ManageSessions, SessionChange
from tests.gateway.usecases.rooms import MODEL, StillClock, Talk, refused, texts

EMPTY = SessionChange()


async def opened(sessions: ManageSessions, title: str = "", agent: str = "") -> Session:
    return await sessions.create(agent, SessionChange(title=title))


async def test_a_session_is_found_by_id_and_by_key(sessions: ManageSessions, clock: StillClock) -> None:
    made = await sessions.create("", EMPTY)
    assert (made.agent_id, made.model, made.message_count, made.generation) == ("default", MODEL, 0, 1)
    assert made.created_ms == made.updated_ms == clock.ms
    assert await sessions.get(made.session_id) == await sessions.get(made.key) == made


async def test_what_a_session_cannot_be_is_refused(sessions: ManageSessions) -> None:
    await refused(sessions.create("a:b", EMPTY), "INVALID_MESSAGE")
    await refused(sessions.create("", SessionChange(title="x" * 201)), "INVALID_MESSAGE")
    await refused(sessions.create("", SessionChange(system_prompt="ä" * 600_000)), "INVALID_MESSAGE")
    await refused(sessions.create("", SessionChange(model="nobody/serves-this")), "MODEL_NOT_FOUND")
    await refused(sessions.get("V1StGXR8_Z5jdHi6B-myT"), "SESSION_NOT_FOUND")
    await refused(sessions.get("no such id"), "SESSION_NOT_FOUND")
    assert (await sessions.list_sessions(0, "")).items == ()


async def test_pages_hold_every_session_once_newest_first(sessions: ManageSessions, clock: StillClock) -> None:
    made = []
    for number in range(7):
        clock.ms += number % 2  # some in the same millisecond
        made.append(await opened(sessions))
    listed: list[Session] = []
    token = ""
    for size in (3, 1, 3):
        found = await sessions.list_sessions(size, token)
        assert len(found.items) == size
        listed += found.items
        token = found.next_page_token
    assert token == ""
    assert listed == sorted(made, key=lambda s: (s.created_ms, s.session_id), reverse=True)


async def test_a_list_can_be_of_one_agent_and_its_token_stays_there(sessions: ManageSessions) -> None:
    mine = [await opened(sessions, agent="me") for _ in range(2)]
    await opened(sessions)
    found = await sessions.list_sessions(1, "", agent_id="me")
    assert found.items[0] in mine
    await refused(sessions.list_sessions(1, found.next_page_token), "INVALID_MESSAGE")
    await refused(sessions.list_sessions(1, found.next_page_token, agent_id="me", deleted=True), "INVALID_MESSAGE")
    rest = await sessions.list_sessions(1, found.next_page_token, agent_id="me")
    assert {*found.items, *rest.items} == set(mine)


async def test_only_what_the_mask_names_changes(sessions: ManageSessions, clock: StillClock) -> None:
    made = await sessions.create("", SessionChange("old", MODEL, "be kind"))
    clock.ms += 5
    change = SessionChange("", "scripted/count", "be brief")
    changed = await sessions.update(made.key, change, ["title", "model"], made.etag)
    assert (changed.title, changed.model, changed.system_prompt) == ("", "scripted/count", "be kind")
    assert changed.updated_ms == clock.ms
    assert changed.etag != made.etag
    assert await sessions.get(made.session_id) == changed


async def test_what_the_mask_does_not_name_is_not_looked_at(sessions: ManageSessions) -> None:
    made = await sessions.create("", SessionChange("old", MODEL, "be kind"))
    change = SessionChange("new", "nobody/serves-this", "x" * 2_000_000)
    assert (await sessions.update(made.key, change, ["title"], "")).title == "new"
    await refused(sessions.update(made.key, change, ["model"], ""), "MODEL_NOT_FOUND")


async def test_without_a_mask_what_is_given_changes(sessions: ManageSessions) -> None:
    made = await sessions.create("", SessionChange("old", "scripted/count", "be kind"))
    changed = await sessions.update(made.session_id, SessionChange(title="new"), [], "")
    assert (changed.title, changed.model, changed.system_prompt) == ("new", "scripted/count", "be kind")


async def test_no_change_keeps_the_etag(sessions: ManageSessions) -> None:
    made = await opened(sessions, "old")
    assert await sessions.update(made.session_id, SessionChange("old"), ["title"], "") == made
    assert await sessions.update(made.session_id, EMPTY, [], "") == made


async def test_a_change_over_a_newer_one_is_refused(sessions: ManageSessions) -> None:
    made = await opened(sessions)
    newer = await sessions.update(made.session_id, SessionChange("mine"), ["title"], made.etag)
    error = await refused(
        sessions.update(made.session_id, SessionChange("yours"), ["title"], made.etag), "ETAG_MISMATCH"
    )
    assert error.metadata == {"etag": newer.etag}
    assert (await sessions.get(made.session_id)).title == "mine"


@pytest.mark.parametrize("mask", [["session_id"], ["title", "etag"], ["*"], [""]])
async def test_a_mask_names_nothing_else(sessions: ManageSessions, mask: list[str]) -> None:
    made = await opened(sessions)
    error = await refused(sessions.update(made.session_id, EMPTY, mask, ""), "INVALID_MESSAGE")
    assert error.metadata["field"] == "updateMask"


async def test_messages_page_in_both_directions(sessions: ManageSessions, store: Database, talk: Talk) -> None:
    made = await opened(sessions)
    await store.write(lambda tx: talk(tx, made, "a b"))
    first = await sessions.list_messages(made.key, 3, "")
    assert texts(first.items) == "a A b"
    last = await sessions.list_messages(made.session_id, 3, first.next_page_token)
    assert (texts(last.items), last.next_page_token) == ("B", "")
    newest = await sessions.list_messages(made.session_id, 1, "", newest_first=True)
    assert texts(newest.items) == "B"
    await refused(sessions.list_messages(made.session_id, 1, newest.next_page_token), "INVALID_MESSAGE")
    other = await opened(sessions)
    await refused(sessions.list_messages(other.session_id, 3, first.next_page_token), "INVALID_MESSAGE")


@pytest.mark.parametrize("generation", [-1, 2])
async def test_a_generation_that_is_not_there_is_refused(sessions: ManageSessions, generation: int) -> None:
    made = await opened(sessions)
    await refused(sessions.list_messages(made.session_id, 0, "", generation=generation), "INVALID_MESSAGE")
    assert (await sessions.list_messages(made.session_id, 0, "", generation=1)).items == ()
