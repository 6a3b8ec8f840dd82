"""What every store must do with sealed provider keys."""

from dataclasses import replace

from gateway.usecases.ports import SealedKey, Store

KEY = SealedKey("anthropic", b"\x00\xffsealed", "…wxyz", 5, 6)


async def keeps_one_key_a_provider(store: Store) -> None:
    other = SealedKey("acme", b"1", "…", 1)
    newer = replace(KEY, sealed=b"newer", masked="…1234", created_ms=8, last_used_ms=0)
    await store.write(lambda tx: tx.keys.put(KEY))
    assert await store.read(lambda tx: tx.keys.get("anthropic")) == KEY
    await store.write(lambda tx: tx.keys.put(newer))
    await store.write(lambda tx: tx.keys.put(other))
    assert await store.read(lambda tx: tx.keys.all()) == [other, newer]
    assert await store.read(lambda tx: tx.keys.get("none")) is None


async def marks_use(store: Store) -> None:
    await store.write(lambda tx: tx.keys.put(KEY))
    await store.write(lambda tx: tx.keys.mark_used("anthropic", 99))
    assert await store.read(lambda tx: tx.keys.get("anthropic")) == replace(KEY, last_used_ms=99)


async def deletes(store: Store) -> None:
    await store.write(lambda tx: tx.keys.put(KEY))
    assert await store.write(lambda tx: tx.keys.delete("anthropic")) is True
    assert await store.write(lambda tx: tx.keys.delete("anthropic")) is False
    assert await store.read(lambda tx: tx.keys.all()) == []
