"""The audit log in a transaction: the port `Audit`. Called by use cases, through transaction."""

import sqlite3

from sqlalchemy import insert, select

from agentspace.v1 import error_pb2
from gateway.domain.audit import AuditEvent
from gateway.domain.error import GatewayError
from gateway.storage.statement import Link, Statement, limited, value
from gateway.storage.tables import audit_log

_c = audit_log.c
_FIELDS = "created_ms principal action subject outcome"

_APPEND = Statement(insert(audit_log).values({name: value(name) for name in _FIELDS.split()}), _FIELDS)
_PAGE = Statement(
    limited(
        select(*(_c[name] for name in _FIELDS.split()), _c.event_id)
        .where(_c.event_id < value("after"))
        .order_by(_c.event_id.desc())
    ),
    "after limit",
)
_END = 2**63 - 1


class SqlAudit:
    """See the port."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def append(self, event: AuditEvent) -> None:
        """Add a row; the database gives the event its id. Raises AUDIT_UNAVAILABLE when it refuses the row."""
        try:
            self._link.run(_APPEND, event.created_ms, event.principal, event.action, event.subject, event.outcome)
        except sqlite3.IntegrityError as error:
            raise GatewayError(
                error_pb2.ERROR_REASON_AUDIT_UNAVAILABLE, f"the audit log refuses the record: {error}"
            ) from error

    def page(self, *, after: int | None, limit: int) -> list[AuditEvent]:
        """Newest first by event_id; `after` is that of the last one seen."""
        return [AuditEvent(*row) for row in self._link.all(_PAGE, _END if after is None else after, limit)]
