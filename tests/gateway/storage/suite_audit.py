"""What every store must do with the audit log."""

from gateway.domain.audit import AuditEvent
from gateway.usecases.ports import Store, Transaction


async def pages_newest_first_with_every_field(store: Store) -> None:
    events = [AuditEvent(number, f"p{number}", "keys.read", "anthropic", "ok") for number in range(5)]

    def work(tx: Transaction) -> None:
        for event in events:
            tx.audit.append(event)

    await store.write(work)
    first = await store.read(lambda tx: tx.audit.page(after=None, limit=3))
    rest = await store.read(lambda tx: tx.audit.page(after=first[-1].event_id, limit=3))
    assert [(e.created_ms, e.principal) for e in first + rest] == [(n, f"p{n}") for n in (4, 3, 2, 1, 0)]
    assert {(e.action, e.subject, e.outcome) for e in first} == {("keys.read", "anthropic", "ok")}
    assert len({e.event_id for e in first + rest}) == 5
