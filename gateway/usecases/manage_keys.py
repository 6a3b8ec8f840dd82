"""Provider keys: KeyUse gives a turn its key, ManageKeys lets people keep them. Each deed leaves an audit row.

No audit row, no key: the row is written in the transaction of the deed, and a key is only used after the commit. Called
by run_turn and send_message (KeyUse) and by rpc's key service (ManageKeys).
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from agentspace.v1 import error_pb2
from gateway.domain.audit import AuditEvent
from gateway.domain.error import GatewayError, invalid
from gateway.domain.secret import Secret
from gateway.usecases.ports import Catalog, Clock, Provider, SealedKey, Store, Transaction, Vault

T = TypeVar("T")

USED_WITHIN_MS = 60_000
"""A key's last use is known to the minute: each use has its audit row, and need not be written twice."""
_KEY = re.compile(r"[!-~](?:[ -~]{0,4094}[!-~])?")


class KeyUse:
    """Finds the key of a provider: the stored one, else the one in the environment."""

    def __init__(self, vault: Vault, clock: Clock, environment: Mapping[str, Secret]) -> None:
        self._vault = vault
        self._clock = clock
        self._environment = environment

    def use(self, tx: Transaction, provider: str, principal: str) -> Secret:
        """The key for a turn of `principal`, with the audit row `key.use` of a stored key, in the caller's transaction.

        The key must not be used before that is committed. Raises PROVIDER_KEY_MISSING or VAULT_UNAVAILABLE.
        """
        stored = self.stored(tx, provider)
        if stored is None:
            return self.from_environment(provider)
        tx.audit.append(AuditEvent(self._clock.now_ms(), principal, "key.use", provider, "ok"))
        return stored

    def stored(self, tx: Transaction, provider: str) -> Secret | None:
        """The stored key, marked as used within the minute; None when there is none. Raises VAULT_UNAVAILABLE."""
        sealed = tx.keys.get(provider)
        if sealed is None:
            return None
        key = self._vault.open(provider, sealed.sealed)
        now = self._clock.now_ms()
        if abs(now - sealed.last_used_ms) >= USED_WITHIN_MS:
            tx.keys.mark_used(provider, now)
        return key

    def from_environment(self, provider: str) -> Secret:
        """The environment's key. Raises PROVIDER_KEY_MISSING."""
        key = self._environment.get(provider)
        if key is None:
            raise _key_missing(provider)
        return key

    def check(self, tx: Transaction, provider: str) -> None:
        """Raises VAULT_UNAVAILABLE when there is a stored key and it does not open. Nobody gets to see the key."""
        sealed = tx.keys.get(provider)
        if sealed is not None:
            self._vault.open(provider, sealed.sealed)

    def available(self, tx: Transaction, provider: str) -> bool:
        """Whether there is a key, without reading it."""
        return provider in self._environment or tx.keys.get(provider) is not None

    def require(self, tx: Transaction, provider: str) -> None:
        """Raises what `use` would, and uses nothing."""
        if not self.available(tx, provider):
            raise _key_missing(provider)
        self.check(tx, provider)


class ManageKeys:
    """Stores, lists, tests, deletes and gives back keys. `principal` is the caller's name for the audit log."""

    def __init__(
        self,
        *,
        store: Store,
        vault: Vault,
        keys: KeyUse,
        catalog: Catalog,
        providers: Mapping[str, Provider],
        clock: Clock,
    ) -> None:
        self._store = store
        self._vault = vault
        self._keys = keys
        self._catalog = catalog
        self._providers = providers
        self._clock = clock

    async def put(self, principal: str, provider: str, key: str) -> SealedKey:
        """Store or replace a provider's key, 1 to 4096 printable ASCII characters; a line end behind it is dropped.

        Raises PROVIDER_NOT_FOUND, INVALID_MESSAGE, VAULT_UNAVAILABLE or AUDIT_UNAVAILABLE.
        """
        key = key.removesuffix("\n").removesuffix("\r")

        def work(tx: Transaction) -> SealedKey:
            self._must_know(provider)
            if _KEY.fullmatch(key) is None:
                raise invalid("key", "1 to 4096 printable ASCII characters, without spaces around them")
            secret = Secret(key)
            sealed = self._vault.seal(provider, secret)
            stored = SealedKey(provider, sealed, secret.masked(), self._clock.now_ms())
            tx.keys.put(stored)
            return stored

        return await self._audited(principal, "key.put", provider, work)

    async def list_keys(self, principal: str) -> list[SealedKey]:
        """The stored keys by provider name, sealed and masked. Raises AUDIT_UNAVAILABLE."""
        return await self._audited(
            principal, "key.list", "", lambda tx: sorted(tx.keys.all(), key=lambda key: key.provider)
        )

    async def test(self, principal: str, provider: str) -> str:
        """Empty when the provider accepts the key that turns would use, else its word for why not.

        Raises PROVIDER_NOT_FOUND, PROVIDER_KEY_MISSING, VAULT_UNAVAILABLE, AUDIT_UNAVAILABLE or UPSTREAM_*.
        """

        def work(tx: Transaction) -> Secret:
            self._must_know(provider)
            return self._keys.stored(tx, provider) or self._keys.from_environment(provider)

        key = await self._audited(principal, "key.test", provider, work)
        return await self._providers[provider].test_key(key)

    async def delete(self, principal: str, provider: str) -> bool:
        """Remove a key; whether there was one. Raises PROVIDER_NOT_FOUND or AUDIT_UNAVAILABLE."""

        def work(tx: Transaction) -> bool:
            self._must_know(provider)
            return tx.keys.delete(provider)

        return await self._audited(principal, "key.delete", provider, work)

    async def read_back(self, principal: str, provider: str) -> Secret:
        """A stored key in clear.

        Raises PROVIDER_NOT_FOUND, PROVIDER_KEY_MISSING, VAULT_UNAVAILABLE or AUDIT_UNAVAILABLE.
        """

        def work(tx: Transaction) -> Secret:
            self._must_know(provider)
            key = self._keys.stored(tx, provider)
            if key is None:
                raise _key_missing(provider)
            return key

        return await self._audited(principal, "key.read", provider, work)

    async def audit_denied(self, principal: str, action: str, provider: str) -> None:
        """Record that `principal` had no right to do `action`, for instance "key.read". Raises AUDIT_UNAVAILABLE."""
        subject = f"{action} {self._subject(provider)}".rstrip()
        await self._record(principal, "key.denied", subject, "MISSING_SCOPE")

    async def _audited(self, principal: str, action: str, provider: str, work: Callable[[Transaction], T]) -> T:
        """Do `work` and write its audit row in one transaction. If `work` raises, only the row is stored."""
        subject = self._subject(provider)

        def both(tx: Transaction) -> T:
            result = work(tx)
            tx.audit.append(AuditEvent(self._clock.now_ms(), principal, action, subject, "ok"))
            return result

        try:
            return await self._store.write(both)
        except GatewayError as error:
            if error.reason == error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE:
                raise _audit_unavailable() from error
            await self._record(principal, action, subject, error.code)
            raise

    async def _record(self, principal: str, action: str, subject: str, outcome: str) -> None:
        event = AuditEvent(self._clock.now_ms(), principal, action, subject, outcome)
        try:
            await self._store.write(lambda tx: tx.audit.append(event))
        except GatewayError as error:
            raise _audit_unavailable() from error

    def _must_know(self, provider: str) -> None:
        if provider not in self._catalog.providers:
            raise GatewayError(
                error_pb2.ERROR_REASON_PROVIDER_NOT_FOUND,
                "no provider of that name takes a key",
                metadata={"provider": self._subject(provider)},
            )

    def _subject(self, provider: str) -> str:
        """What the audit log and errors call it. An unknown name may be a misplaced key: it is not repeated."""
        return provider if not provider or provider in self._catalog.providers else "unknown"


def _key_missing(provider: str) -> GatewayError:
    return GatewayError(
        error_pb2.ERROR_REASON_PROVIDER_KEY_MISSING,
        f"no key for {provider} is stored or in the environment",
        metadata={"provider": provider},
    )


def _audit_unavailable() -> GatewayError:
    return GatewayError(
        error_pb2.ERROR_REASON_AUDIT_UNAVAILABLE,
        "the audit record could not be written, so the key was neither served nor changed",
    )
