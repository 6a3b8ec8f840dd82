"""Provider keys: sealed, given out only with an audit row, and shown nowhere else."""

import base64
import sqlite3
from pathlib import Path

import pytest

from gateway.domain.error import GatewayError
from gateway.domain.secret import Secret
from gateway.providers.catalog import BuiltInCatalog
from gateway.storage.database import Database
from gateway.usecases.manage_keys import KeyUse, ManageKeys
from gateway.usecases.ports import AnswerSink, Ending, ModelRequest, SealedKey
from gateway.vault.envelope import EnvelopeVault
from gateway.vault.master_key import MasterKey
from tests.gateway.usecases.rooms import StillClock, refused

CANARY = "sk-ant-canary-0123456789"
OTHER = "sk-ant-environment-9876543210"


class Upstream:
    """The paid provider: accepts one key."""

    name = "anthropic"
    needs_key = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def generate(self, request: ModelRequest, sink: AnswerSink) -> Ending:
        raise NotImplementedError

    async def test_key(self, key: Secret) -> str:
        self.seen.append(key.reveal())
        return "" if key.reveal() == CANARY else "invalid x-api-key"

    async def close(self) -> None: ...


class House:
    """A ManageKeys and what it stands on."""

    def __init__(self, store: Database, clock: StillClock, home: Path, environment: dict[str, Secret]) -> None:
        self.store = store
        self.file = home / "agentspace.db"
        self.master_key = home / "master.key"
        self.upstream = Upstream()
        vault = EnvelopeVault(MasterKey(None, self.master_key))
        self.use = KeyUse(vault, clock, environment)
        self.keys = ManageKeys(
            store=store,
            vault=vault,
            keys=self.use,
            catalog=BuiltInCatalog(),
            providers={"anthropic": self.upstream},
            clock=clock,
        )

    async def key(self) -> SealedKey | None:
        return await self.store.read(lambda tx: tx.keys.get("anthropic"))

    async def rows(self) -> list[tuple[str, str, str, str]]:
        events = await self.store.read(lambda tx: tx.audit.page(after=None, limit=100))
        return [(event.principal, event.action, event.subject, event.outcome) for event in reversed(events)]

    def break_audit(self) -> None:
        """The audit log can't be written any more; everything else can."""
        with sqlite3.connect(self.file) as connection:
            connection.execute("ALTER TABLE audit_log RENAME TO audit_log_gone")
        connection.close()


@pytest.fixture
def house(store: Database, clock: StillClock, tmp_path: Path) -> House:
    return House(store, clock, tmp_path, {})


@pytest.fixture
def furnished(store: Database, clock: StillClock, tmp_path: Path) -> House:
    return House(store, clock, tmp_path, {"anthropic": Secret(OTHER)})


async def test_a_key_is_stored_sealed_and_shown_masked(house: House, clock: StillClock, tmp_path: Path) -> None:
    stored = await house.keys.put("operator", "anthropic", CANARY + "\r\n")
    assert (stored.provider, stored.masked, stored.created_ms) == ("anthropic", "…6789", clock.ms)
    assert await house.keys.list_keys("operator") == [stored]
    assert (await house.keys.read_back("operator", "anthropic")).reveal() == CANARY
    for form in (CANARY.encode(), base64.b64encode(CANARY.encode()), CANARY.encode().hex().encode()):
        assert all(form not in file.read_bytes() for file in tmp_path.iterdir() if file.is_file())


async def test_every_deed_leaves_a_row(house: House) -> None:
    await house.keys.put("operator", "anthropic", CANARY)
    await house.keys.list_keys("operator")
    await house.keys.test("operator", "anthropic")
    await house.keys.read_back("backup", "anthropic")
    await house.store.write(lambda tx: house.use.use(tx, "anthropic", "local"))
    await house.keys.delete("operator", "anthropic")
    assert await house.rows() == [
        ("operator", "key.put", "anthropic", "ok"),
        ("operator", "key.list", "", "ok"),
        ("operator", "key.test", "anthropic", "ok"),
        ("backup", "key.read", "anthropic", "ok"),
        ("local", "key.use", "anthropic", "ok"),
        ("operator", "key.delete", "anthropic", "ok"),
    ]


async def test_failures_leave_their_reason(house: House) -> None:
    await refused(house.keys.read_back("operator", "anthropic"), "PROVIDER_KEY_MISSING")
    await refused(house.keys.test("operator", "anthropic"), "PROVIDER_KEY_MISSING")
    await refused(house.keys.put("operator", "anthropic", ""), "INVALID_MESSAGE")
    assert not await house.keys.delete("operator", "anthropic")
    assert await house.rows() == [
        ("operator", "key.read", "anthropic", "PROVIDER_KEY_MISSING"),
        ("operator", "key.test", "anthropic", "PROVIDER_KEY_MISSING"),
        ("operator", "key.put", "anthropic", "INVALID_MESSAGE"),
        ("operator", "key.delete", "anthropic", "ok"),
    ]


async def test_denied_attempts_are_written_down(house: House) -> None:
    await house.keys.audit_denied("local", "key.read", "anthropic")
    await house.keys.audit_denied("local", "key.put", CANARY)
    await house.keys.audit_denied("local", "key.list", "")
    assert await house.rows() == [
        ("local", "key.denied", "key.read anthropic", "MISSING_SCOPE"),
        ("local", "key.denied", "key.put unknown", "MISSING_SCOPE"),
        ("local", "key.denied", "key.list", "MISSING_SCOPE"),
    ]


async def test_a_key_given_as_the_provider_is_not_written_down(house: House, tmp_path: Path) -> None:
    for deed in (
        house.keys.put("operator", CANARY, "x"),
        house.keys.test("operator", CANARY),
        house.keys.delete("operator", CANARY),
        house.keys.read_back("operator", CANARY),
    ):
        await refused(deed, "PROVIDER_NOT_FOUND")
    assert {row[2:] for row in await house.rows()} == {("unknown", "PROVIDER_NOT_FOUND")}
    assert all(CANARY.encode() not in file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize("key", ["", "\n", " x", "x ", "a\nb", "a\tb", "ä", "x" * 4097, "x\n\n", "\x7f", "a\0b"])
async def test_what_no_key_looks_like_is_refused(house: House, key: str) -> None:
    error = await refused(house.keys.put("operator", "anthropic", key), "INVALID_MESSAGE")
    assert error.metadata["field"] == "key"
    assert await house.keys.list_keys("operator") == []


@pytest.mark.parametrize("key", ["x", "a b", "!~", "x" * 4096])
async def test_what_a_key_may_look_like_is_kept_as_it_is(house: House, key: str) -> None:
    await house.keys.put("operator", "anthropic", key)
    assert (await house.keys.read_back("operator", "anthropic")).reveal() == key


async def test_a_refused_key_is_not_repeated(house: House) -> None:
    error = await refused(house.keys.put("operator", "anthropic", f" {CANARY}"), "INVALID_MESSAGE")
    assert CANARY not in f"{error}{vars(error)}{await house.rows()}"


async def test_putting_again_replaces(house: House) -> None:
    await house.keys.put("operator", "anthropic", OTHER)
    await house.keys.put("operator", "anthropic", CANARY)
    assert len(await house.keys.list_keys("operator")) == 1
    assert (await house.keys.read_back("operator", "anthropic")).reveal() == CANARY


async def test_deleting_tells_whether_there_was_one(house: House) -> None:
    await house.keys.put("operator", "anthropic", CANARY)
    assert await house.keys.delete("operator", "anthropic")
    assert not await house.keys.delete("operator", "anthropic")
    assert await house.key() is None


async def test_the_provider_is_asked_with_the_key_turns_would_use(furnished: House) -> None:
    assert await furnished.keys.test("operator", "anthropic") == "invalid x-api-key"
    await furnished.keys.put("operator", "anthropic", CANARY)
    assert await furnished.keys.test("operator", "anthropic") == ""
    assert furnished.upstream.seen == [OTHER, CANARY]


async def test_a_turn_uses_the_stored_key_before_the_environments(furnished: House, clock: StillClock) -> None:
    def use() -> object:
        return furnished.store.write(lambda tx: furnished.use.use(tx, "anthropic", "local").reveal())

    assert await use() == OTHER  # type: ignore[misc]
    assert await furnished.rows() == []
    await furnished.keys.put("operator", "anthropic", CANARY)
    clock.ms += 60_000
    assert await use() == CANARY  # type: ignore[misc]
    stored = await furnished.key()
    assert stored is not None
    assert stored.last_used_ms == clock.ms
    assert (await furnished.rows())[-1] == ("local", "key.use", "anthropic", "ok")
    # Within a minute the time stands; each use has its audit row all the same.
    used, rows = clock.ms, len(await furnished.rows())
    for later, seen in ((59_999, used), (1, used + 60_000)):
        clock.ms += later
        assert await use() == CANARY  # type: ignore[misc]
        stored = await furnished.key()
        assert stored is not None
        assert stored.last_used_ms == seen
    assert len(await furnished.rows()) == rows + 2


async def test_reading_back_gives_no_key_of_the_environment(furnished: House) -> None:
    await refused(furnished.keys.read_back("operator", "anthropic"), "PROVIDER_KEY_MISSING")


async def test_a_turn_without_any_key_is_refused(house: House) -> None:
    error = await refused(house.store.write(lambda tx: house.use.use(tx, "anthropic", "x")), "PROVIDER_KEY_MISSING")
    assert error.metadata == {"provider": "anthropic"}
    assert not await house.store.read(lambda tx: house.use.available(tx, "anthropic"))


async def test_a_turn_that_is_not_accepted_leaves_no_row_and_no_use(house: House) -> None:
    await house.keys.put("operator", "anthropic", CANARY)

    def accept(tx: object) -> None:
        house.use.use(tx, "anthropic", "local")  # type: ignore[arg-type]
        raise GatewayError(5, "refused after all")  # type: ignore[arg-type]

    with pytest.raises(GatewayError):
        await house.store.write(accept)
    assert [row[1] for row in await house.rows()] == ["key.put"]
    stored = await house.key()
    assert stored is not None
    assert stored.last_used_ms == 0


async def test_another_master_key_opens_nothing_and_says_so(house: House) -> None:
    await house.keys.put("operator", "anthropic", CANARY)
    await house.store.read(lambda tx: house.use.check(tx, "anthropic"))
    house.master_key.write_text(base64.b64encode(bytes(32)).decode())
    await refused(house.keys.read_back("operator", "anthropic"), "VAULT_UNAVAILABLE")
    await refused(house.keys.test("operator", "anthropic"), "VAULT_UNAVAILABLE")
    await refused(house.store.write(lambda tx: house.use.use(tx, "anthropic", "local")), "VAULT_UNAVAILABLE")
    await refused(house.store.read(lambda tx: house.use.check(tx, "anthropic")), "VAULT_UNAVAILABLE")
    assert ("operator", "key.read", "anthropic", "VAULT_UNAVAILABLE") in await house.rows()
    assert house.upstream.seen == []
    assert await house.keys.delete("operator", "anthropic")


async def test_a_vault_that_cannot_be_opened_is_no_reason_to_take_the_environments_key(furnished: House) -> None:
    await furnished.keys.put("operator", "anthropic", CANARY)
    furnished.master_key.chmod(0o644)
    await refused(furnished.store.write(lambda tx: furnished.use.use(tx, "anthropic", "x")), "VAULT_UNAVAILABLE")


async def test_without_audit_nothing_is_served_and_nothing_changed(furnished: House) -> None:
    await furnished.keys.put("operator", "anthropic", CANARY)
    before = await furnished.key()
    furnished.break_audit()
    for deed in (
        furnished.keys.put("operator", "anthropic", OTHER),
        furnished.keys.list_keys("operator"),
        furnished.keys.test("operator", "anthropic"),
        furnished.keys.read_back("operator", "anthropic"),
        furnished.keys.delete("operator", "anthropic"),
        furnished.keys.audit_denied("local", "key.read", "anthropic"),
    ):
        await refused(deed, "AUDIT_UNAVAILABLE")
    await refused(furnished.store.write(lambda tx: furnished.use.use(tx, "anthropic", "x")), "STORAGE_UNAVAILABLE")
    assert furnished.upstream.seen == []
    assert await furnished.key() == before
