"""CheckReadiness: would a chat with the default model work, up to the provider? Called by rpc's gateway service."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.domain.error import GatewayError
from gateway.usecases.manage_keys import KeyUse
from gateway.usecases.ports import Catalog, Provider, Store
from gateway.usecases.run_turn import RunTurn

STORAGE_SECONDS = 2.0
"""How long the database may take to prove that it can be written."""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing a chat needs. `detail` says what is wrong and what to do; empty when it is in order."""

    name: str
    detail: str = ""


class CheckReadiness:
    """Looks at every part; calls no provider."""

    def __init__(
        self,
        *,
        store: Store,
        catalog: Catalog,
        providers: Mapping[str, Provider],
        keys: KeyUse,
        run: RunTurn,
        default_model: str,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._providers = providers
        self._keys = keys
        self._run = run
        self._default_model = default_model

    async def __call__(self) -> list[Part]:
        """The parts: storage, vault, provider, draining."""
        return [
            Part("storage", await self._storage()),
            *(await self._key()),
            Part("draining", "the gateway is going down" if self._run.draining else ""),
        ]

    async def _storage(self) -> str:
        try:
            async with asyncio.timeout(STORAGE_SECONDS):
                await self._store.check()
        except TimeoutError:
            return f"the database could not be written for {STORAGE_SECONDS:g} s"
        except GatewayError as error:
            return error.message
        return ""

    async def _key(self) -> list[Part]:
        try:
            model = self._catalog.find(self._default_model)
        except GatewayError as error:
            return [Part("vault"), Part("provider", error.message)]
        if not self._providers[model.provider].needs_key:
            return [Part("vault"), Part("provider")]
        hint = f"no key for {model.provider}: run `agentspace keys set {model.provider}`"
        try:
            if not await self._store.read(lambda tx: self._keys.available(tx, model.provider)):
                return [Part("vault"), Part("provider", hint)]
            await self._store.read(lambda tx: self._keys.check(tx, model.provider))
        except GatewayError as error:
            return [Part("vault", error.message), Part("provider")]
        return [Part("vault"), Part("provider")]
