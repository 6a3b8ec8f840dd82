"""The audit log, newest first."""

from gateway.domain.audit import AuditEvent
from gateway.storage.database import Database
from gateway.usecases.read_audit import ReadAudit
from tests.gateway.usecases.rooms import refused


async def test_pages_hold_every_row_once_newest_first(store: Database) -> None:
    events = [AuditEvent(number, "operator", "key.use", "anthropic", "ok") for number in range(5)]
    await store.write(lambda tx: [tx.audit.append(event) for event in events])
    read_audit = ReadAudit(store)
    first = await read_audit(3, "")
    rest = await read_audit(3, first.next_page_token)
    assert [event.created_ms for event in (*first.items, *rest.items)] == [4, 3, 2, 1, 0]
    assert rest.next_page_token == ""
    assert len({event.event_id for event in (*first.items, *rest.items)}) == 5


async def test_other_tokens_and_sizes_are_refused(store: Database) -> None:
    await refused(ReadAudit(store)(0, "x"), "INVALID_MESSAGE")
    await refused(ReadAudit(store)(-1, ""), "INVALID_MESSAGE")
