"""QueryUsage: sums the ledger and lists its rows. Called by rpc's usage service."""

from dataclasses import dataclass

from gateway.domain.ids import resolve_session
from gateway.domain.usage import ModelTotal, UsageRecord
from gateway.usecases.find_session import living_session
from gateway.usecases.paging import Page, page, page_size, read_token
from gateway.usecases.ports import Store, Transaction


@dataclass(frozen=True, slots=True)
class UsageSums:
    """Sums by model name."""

    per_model: dict[str, ModelTotal]

    @property
    def grand_total(self) -> ModelTotal:
        """All models together."""
        totals = self.per_model.values()
        return ModelTotal(*(sum(getattr(total, name) for total in totals) for name in ModelTotal._fields))


class QueryUsage:
    """Reads the ledger."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def totals(self, reference: str = "") -> UsageSums:
        """A session's sums, or everybody's when `reference` is empty. Raises SESSION_NOT_FOUND."""

        def work(tx: Transaction) -> UsageSums:
            return UsageSums(tx.usage.totals(_scope(tx, reference)))

        return await self._store.read(work)

    async def records(self, reference: str, size: int, token: str) -> Page[UsageRecord]:
        """A page of a session's rows, or of all rows when `reference` is empty, newest first.

        Raises SESSION_NOT_FOUND or INVALID_MESSAGE.
        """
        limit = page_size(size)
        listing = f"usage:{resolve_session(reference) if reference else ''}"
        place = read_token(token, listing, int)
        after = None if place is None else int(place[0])

        def work(tx: Transaction) -> list[UsageRecord]:
            return tx.usage.page(_scope(tx, reference), after=after, limit=limit + 1)

        found = await self._store.read(work)
        return page(found, limit, listing, lambda record: (record.record_id,))


def _scope(tx: Transaction, reference: str) -> str | None:
    return living_session(tx, resolve_session(reference)).session_id if reference else None
