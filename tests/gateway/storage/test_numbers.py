"""numbers.py: what is remembered is what is stored, whatever was taken back in between."""

import asyncio
from pathlib import Path

import pytest

from gateway.domain.error import GatewayError
from gateway.storage import numbers
from gateway.storage.database import Database
from tests.gateway.storage.samples import message, session, turn


async def test_a_number_that_was_taken_back_belongs_to_nobody(store: Database) -> None:
    def refused(tx) -> None:  # type: ignore[no-untyped-def]
        tx.sessions.insert(session("gone"))
        tx.turns.insert(turn("t-gone", "gone"))
        raise LookupError

    def stored(tx) -> None:  # type: ignore[no-untyped-def]
        tx.sessions.insert(session("here"))
        tx.turns.insert(turn("t-here", "here"))

    # Alone, and among others.
    for rounds in (1, 3):
        with pytest.raises(LookupError):
            await asyncio.gather(*(store.write(refused) for _ in range(rounds)))
        if rounds == 1:
            await store.write(stored)
        for work in (
            lambda tx: tx.turns.insert(turn("t2", "gone")),
            lambda tx: tx.messages.insert(message("m1", "gone")),
            lambda tx: tx.sessions.touch("gone", 1),
            lambda tx: tx.sessions.set_position("gone", 1, 1),
            lambda tx: tx.turns.update(turn("t-gone", "gone")),
        ):
            with pytest.raises(GatewayError, match="there is no"):
                await store.write(work)
    await store.write(lambda tx: tx.sessions.touch("here", 77))
    found = await store.read(lambda tx: (tx.sessions.get("here"), tx.sessions.get("gone")))
    assert (found[0].updated_ms if found[0] else 0, found[1]) == (77, None)


async def _positions(store: Database) -> list[tuple[str, int]]:
    history = await store.read(lambda tx: tx.messages.history("s1"))
    return [(message.message_id, message.position) for message in history]


async def test_a_place_that_was_taken_back_is_free(store: Database) -> None:
    await store.write(lambda tx: tx.sessions.insert(session()))
    await store.write(lambda tx: tx.messages.insert(message("m1")))

    def refused(tx) -> None:  # type: ignore[no-untyped-def]
        tx.messages.insert(message("gone"))
        raise LookupError

    with pytest.raises(LookupError):
        await store.write(refused)
    await store.write(lambda tx: tx.messages.insert(message("m2")))
    assert await _positions(store) == [("m1", 1), ("m2", 2)]


async def test_places_are_found_after_a_start_and_beyond_what_was_chosen(store: Database, path: Path) -> None:
    await store.write(lambda tx: tx.sessions.insert(session()))
    await store.write(lambda tx: tx.messages.insert(message("m7", position=7)))
    await store.write(lambda tx: tx.messages.insert(message("m3", position=3)))
    await store.write(lambda tx: tx.messages.insert(message("m8")))
    await store.close()
    again = await Database.open(path)
    await again.write(lambda tx: tx.messages.insert(message("m9")))
    assert await _positions(again) == [("m3", 3), ("m7", 7), ("m8", 8), ("m9", 9)]
    await again.close()


async def test_a_new_generation_goes_on_where_the_old_one_was(store: Database) -> None:
    def compacted(tx) -> None:  # type: ignore[no-untyped-def]
        tx.messages.replace_before("s1", 3, 2)
        tx.sessions.set_generation("s1", 2, 1, 5)
        tx.messages.insert(message("summary", position=2))

    def written(tx) -> None:  # type: ignore[no-untyped-def]
        tx.sessions.insert(session())
        for number in (1, 2):
            tx.messages.insert(message(f"m{number}"))

    await store.write(written)
    await store.write(compacted)
    await store.write(lambda tx: tx.messages.insert(message("m3")))
    assert await _positions(store) == [("summary", 2), ("m3", 3)]
    # Replaced once more, it is of the second generation.
    await store.write(lambda tx: tx.messages.replace_before("s1", 4, 3))
    page = await store.read(lambda tx: tx.messages.page("s1", after=None, limit=9, newest_first=False, generation=2)[0])
    assert [m.message_id for m in page] == ["summary", "m3"]


async def test_what_is_remembered_is_bounded(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "REMEMBERED", 3)
    for number in range(10):
        await store.write(lambda tx, number=number: tx.sessions.insert(session(f"s{number}")))
    for number in range(10):
        await store.write(lambda tx, number=number: tx.sessions.touch(f"s{number}", 1000 + number))
    assert len(store._writer._transaction._numbers._sessions) <= 3
    rows = await store.read(lambda tx: tx.sessions.page(after=None, limit=20, agent_id="", deleted=False)[0])
    assert {row.session_id: row.updated_ms for row in rows} == {f"s{number}": 1000 + number for number in range(10)}
