"""The ledger: sums that are the sums of its rows, whichever way they are added."""

import pytest

from agentspace.v1 import usage_pb2
from gateway.domain.session import Session
from gateway.domain.usage import Charge, ModelTotal, TokenCounts, UsageRecord
from gateway.storage.database import Database
from gateway.usecases.manage_sessions import ManageSessions, SessionChange
from gateway.usecases.query_usage import QueryUsage
from tests.gateway.usecases.rooms import refused


@pytest.fixture
def usage(store: Database) -> QueryUsage:
    return QueryUsage(store)


def row(session: Session, model: str, tokens: int, pico: int | None) -> UsageRecord:
    charge = Charge(priced=False) if pico is None else Charge(pico, 1, True, "v1")
    counts = TokenCounts(uncached_input=tokens, cache_read=1, output=2)
    status = usage_pb2.USAGE_STATUS_FINAL
    return UsageRecord(session.session_id, "turn", 1, model, "p", counts, charge, status, "completed", 1)


async def filled(sessions: ManageSessions, store: Database) -> tuple[Session, Session]:
    one, two = [await sessions.create("", SessionChange()) for _ in range(2)]
    rows = [row(one, "a", 10, 100), row(one, "a", 20, None), row(one, "b", 30, 300), row(two, "b", 40, 400)]
    await store.write(lambda tx: [tx.usage.insert(record) for record in rows])
    return one, two


async def test_sums_by_model_are_the_sums_of_the_rows(
    sessions: ManageSessions, usage: QueryUsage, store: Database
) -> None:
    one, _ = await filled(sessions, store)
    sums = await usage.totals(one.key)
    assert sums.per_model == {"a": ModelTotal(32, 4, 101, 2, 1), "b": ModelTotal(31, 2, 301, 1, 0)}
    assert sums.grand_total == ModelTotal(63, 6, 402, 3, 1)
    rows = (await usage.records(one.session_id, 0, "")).items
    assert sums.grand_total == ModelTotal(
        sum(r.counts.input for r in rows),
        sum(r.counts.output for r in rows),
        sum(r.charge.total_pico for r in rows),
        len(rows),
        sum(not r.charge.priced for r in rows),
    )


async def test_all_sessions_together(sessions: ManageSessions, usage: QueryUsage, store: Database) -> None:
    assert (await usage.totals()).grand_total == ModelTotal()
    one, two = await filled(sessions, store)
    parts = [(await usage.totals(session.session_id)).grand_total for session in (one, two)]
    together = (await usage.totals()).grand_total
    assert together.total_pico == sum(part.total_pico for part in parts) == 803
    assert together.requests == sum(part.requests for part in parts) == 4


async def test_rows_page_newest_first(sessions: ManageSessions, usage: QueryUsage, store: Database) -> None:
    one, two = await filled(sessions, store)
    first = await usage.records(one.key, 2, "")
    assert [r.counts.uncached_input for r in first.items] == [30, 20]
    last = await usage.records(one.session_id, 2, first.next_page_token)
    assert [r.counts.uncached_input for r in last.items] == [10]
    assert last.next_page_token == ""
    assert len((await usage.records("", 0, "")).items) == 4
    for other in ("", two.session_id):
        await refused(usage.records(other, 2, first.next_page_token), "INVALID_MESSAGE")


async def test_a_session_that_is_not_there_is_not_found(usage: QueryUsage) -> None:
    await refused(usage.totals("V1StGXR8_Z5jdHi6B-myT"), "SESSION_NOT_FOUND")
    await refused(usage.records("V1StGXR8_Z5jdHi6B-myT", 0, ""), "SESSION_NOT_FOUND")
    await refused(usage.records("", -1, ""), "INVALID_MESSAGE")
