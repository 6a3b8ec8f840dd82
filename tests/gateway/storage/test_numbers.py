"""numbers.py: what is remembered is what is stored, whatever was taken back in between."""

import asyncio

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


async def test_what_is_remembered_is_bounded(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "REMEMBERED", 3)
    for number in range(10):
        await store.write(lambda tx, number=number: tx.sessions.insert(session(f"s{number}")))
    for number in range(10):
        await store.write(lambda tx, number=number: tx.sessions.touch(f"s{number}", 1000 + number))
    assert len(store._writer._transaction._numbers._sessions) <= 3
    rows = await store.read(lambda tx: tx.sessions.page(after=None, limit=20, agent_id="", deleted=False)[0])
    assert {row.session_id: row.updated_ms for row in rows} == {f"s{number}": 1000 + number for number in range(10)}
