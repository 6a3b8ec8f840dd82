"""Ready means that a chat with the default model would work, up to the provider."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.domain.secret import Secret
from gateway.providers.catalog import BuiltInCatalog
from gateway.usecases.check_readiness import CheckReadiness
from gateway.usecases.manage_keys import KeyUse
from gateway.usecases.ports import SealedKey
from gateway.vault.envelope import EnvelopeVault
from gateway.vault.master_key import MasterKey
from tests.gateway.usecases.house import GatedProvider, House, Weak


class Paid(GatedProvider):
    name = "anthropic"
    needs_key = True


def readiness(
    house: House, vault: EnvelopeVault, model: str, keys: Mapping[str, Secret] | None = None
) -> CheckReadiness:
    return CheckReadiness(
        store=house.store,
        catalog=BuiltInCatalog(),
        providers={"scripted": house.provider, "anthropic": Paid()},
        keys=KeyUse(vault, house.clock, keys or {}),
        run=house.run,
        default_model=model,
    )


@pytest.fixture
def vault(tmp_path: Path) -> EnvelopeVault:
    return EnvelopeVault(MasterKey(None, tmp_path / "master.key"))


async def wrong(check: CheckReadiness) -> dict[str, str]:
    parts = await check()
    assert {part.name for part in parts} == {"storage", "vault", "provider", "draining"}
    return {part.name: part.detail for part in parts if part.detail}


async def test_a_model_without_a_key_needs_only_the_database(house: House, vault: EnvelopeVault, weak: Weak) -> None:
    check = readiness(house, vault, "scripted/echo")
    assert await wrong(check) == {}
    weak.refusing = True
    assert list(await wrong(check)) == ["storage"]


async def test_a_gateway_that_goes_down_is_not_ready(house: House, vault: EnvelopeVault) -> None:
    house.run.draining = True
    assert list(await wrong(readiness(house, vault, "scripted/echo"))) == ["draining"]


async def test_an_unknown_default_model_is_told(house: House, vault: EnvelopeVault) -> None:
    assert list(await wrong(readiness(house, vault, "nobody/knows"))) == ["provider"]


async def test_a_missing_key_is_told_with_what_to_do(house: House, vault: EnvelopeVault) -> None:
    found = await wrong(readiness(house, vault, "claude-sonnet-5"))
    assert "agentspace keys set anthropic" in found["provider"]
    assert await wrong(readiness(house, vault, "claude-sonnet-5", {"anthropic": Secret("sk-1")})) == {}


async def test_a_stored_key_must_open(house: House, vault: EnvelopeVault) -> None:
    sealed = vault.seal("anthropic", Secret("sk-1"))
    await house.store.write(lambda tx: tx.keys.put(SealedKey("anthropic", sealed, "…", 1)))
    check = readiness(house, vault, "claude-sonnet-5")
    assert await wrong(check) == {}
    await house.store.write(
        lambda tx: tx.keys.put(SealedKey("anthropic", sealed[:-1] + bytes([sealed[-1] ^ 1]), "…", 1))
    )
    assert list(await wrong(check)) == ["vault"]
