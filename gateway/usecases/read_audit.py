"""ReadAudit: lists who did what with keys. Called by rpc's audit service."""

from gateway.domain.audit import AuditEvent
from gateway.usecases.paging import Page, page, page_size, read_token
from gateway.usecases.ports import Store

_LISTING = "audit"


class ReadAudit:
    """Reads the audit log."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __call__(self, size: int, token: str) -> Page[AuditEvent]:
        """A page, newest first. Raises INVALID_MESSAGE."""
        limit = page_size(size)
        place = read_token(token, _LISTING, int)
        after = None if place is None else int(place[0])
        found = await self._store.read(lambda tx: tx.audit.page(after=after, limit=limit + 1))
        return page(found, limit, _LISTING, lambda event: (event.event_id,))
