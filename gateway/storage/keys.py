"""Sealed provider keys in a transaction: the port `Keys`. Called by use cases, through transaction."""

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from gateway.storage.statement import Link, Statement, value
from gateway.storage.tables import provider_keys
from gateway.usecases.ports import SealedKey

_c = provider_keys.c
_FIELDS = "provider sealed masked created_ms last_used_ms"
_SELECT = select(*(_c[name] for name in _FIELDS.split()))
_BY_PROVIDER = _c.provider == value("provider")

_new_row = upsert(provider_keys).values({name: value(name) for name in _FIELDS.split()})
_PUT = Statement(
    _new_row.on_conflict_do_update(
        index_elements=["provider"],
        set_={name: _new_row.excluded[name] for name in _FIELDS.split()[1:]},
    ),
    _FIELDS,
)
_GET = Statement(_SELECT.where(_BY_PROVIDER), "provider")
_ALL = Statement(_SELECT.order_by(_c.provider))
_DELETE = Statement(delete(provider_keys).where(_BY_PROVIDER), "provider")
_MARK_USED = Statement(
    update(provider_keys).where(_BY_PROVIDER).values(last_used_ms=value("used_ms")), "used_ms provider"
)


class SqlKeys:
    """See the port."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def put(self, key: SealedKey) -> None:
        """Write the provider's key in place of the one it had."""
        self._link.run(_PUT, key.provider, key.sealed, key.masked, key.created_ms, key.last_used_ms)

    def get(self, provider: str) -> SealedKey | None:
        """The provider's key."""
        row = self._link.one(_GET, provider)
        return None if row is None else SealedKey(*row)

    def all(self) -> list[SealedKey]:
        """Every key, by provider."""
        return [SealedKey(*row) for row in self._link.all(_ALL)]

    def delete(self, provider: str) -> bool:
        """Whether there was one."""
        return self._link.run(_DELETE, provider) > 0

    def mark_used(self, provider: str, used_ms: int) -> None:
        """Write when the key was last opened."""
        self._link.run(_MARK_USED, used_ms, provider)
