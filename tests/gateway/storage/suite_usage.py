"""What every store must do with the ledger."""

import pytest

from gateway.domain.error import GatewayError
from gateway.domain.usage import Charge, ModelTotal, TokenCounts
from gateway.usecases.ports import Store, Transaction
from tests.gateway.storage.samples import record, session

UNPRICED = {"counts": TokenCounts(uncached_input=10, output=1), "charge": Charge(priced=False)}


async def _fill(store: Store) -> None:
    def work(tx: Transaction) -> None:
        tx.sessions.insert(session("s1"))
        tx.sessions.insert(session("s2"))
        tx.usage.insert(record("s1", "t1", "claude", attempt=1))
        tx.usage.insert(record("s1", "t1", "claude", attempt=2))
        tx.usage.insert(record("s1", "t2", "local", **UNPRICED))
        tx.usage.insert(record("s2", "t3", "claude", **UNPRICED))

    await store.write(work)


async def totals_are_the_sums_of_the_rows(store: Store) -> None:
    await _fill(store)
    assert await store.read(lambda tx: tx.usage.totals("s1")) == {
        "claude": ModelTotal(20, 10, 300, 2, 0),
        "local": ModelTotal(10, 1, 0, 1, 1),
    }
    assert await store.read(lambda tx: tx.usage.totals("s2")) == {"claude": ModelTotal(10, 1, 0, 1, 1)}
    assert await store.read(lambda tx: tx.usage.totals(None)) == {
        "claude": ModelTotal(30, 11, 300, 3, 1),
        "local": ModelTotal(10, 1, 0, 1, 1),
    }
    assert await store.read(lambda tx: tx.usage.totals("none")) == {}


async def a_row_that_is_taken_back_is_in_no_total(store: Store) -> None:
    await _fill(store)
    before = await store.read(lambda tx: tx.usage.totals(None))

    def work(tx: Transaction) -> None:
        tx.usage.insert(record())
        raise ValueError("changed my mind")

    with pytest.raises(ValueError, match="changed my mind"):
        await store.write(work)
    assert await store.read(lambda tx: tx.usage.totals(None)) == before


async def pages_newest_first_with_every_field(store: Store) -> None:
    await _fill(store)
    every = await store.read(lambda tx: tx.usage.page(None, after=None, limit=9))
    assert [(r.session_id, r.turn_id, r.attempt) for r in every] == [
        ("s2", "t3", 1),
        ("s1", "t2", 1),
        ("s1", "t1", 2),
        ("s1", "t1", 1),
    ]
    assert every[-1] == record("s1", "t1", "claude", attempt=1)._replace(record_id=every[-1].record_id)
    assert every[0] == record("s2", "t3", "claude", **UNPRICED)._replace(record_id=every[0].record_id)
    first = await store.read(lambda tx: tx.usage.page("s1", after=None, limit=2))
    assert first == every[1:3]
    rest = await store.read(lambda tx: tx.usage.page("s1", after=first[-1].record_id, limit=2))
    assert rest == every[3:]


async def needs_its_session(store: Store) -> None:
    with pytest.raises(GatewayError, match="there is no session"):
        await store.write(lambda tx: tx.usage.insert(record("none")))
    assert await store.read(lambda tx: tx.usage.totals(None)) == {}
