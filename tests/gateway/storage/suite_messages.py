"""What every store must do with messages."""

import pytest

from agentspace.v1 import message_pb2
from gateway.domain.error import GatewayError
from gateway.domain.message import ContentBlock
from gateway.usecases.ports import PAGE_BYTES, Store, Transaction
from tests.gateway.storage.samples import message, session

BLOCKS = (
    ContentBlock(message_pb2.BLOCK_KIND_THINKING, "hm\0 \U0001f914", signature="sig"),
    ContentBlock(message_pb2.BLOCK_KIND_TOOL_USE, '{"a": 1}', tool_use_id="tool_1", tool_name="search"),
    ContentBlock(message_pb2.BLOCK_KIND_TEXT, "", complete=False),
)


async def gives_back_every_field(store: Store) -> None:
    await store.write(lambda tx: tx.sessions.insert(session()))
    whole = message("m1", blocks=BLOCKS, role=message_pb2.ROLE_ASSISTANT, model="claude", turn_id="t9", created_ms=5)
    stored = await store.write(lambda tx: tx.messages.insert(whole))
    assert (stored.position, stored.blocks) == (1, BLOCKS)
    assert await store.read(lambda tx: tx.messages.history("s1")) == [stored]
    assert await store.read(lambda tx: tx.messages.get("s1", "m1")) == stored
    assert await store.read(lambda tx: tx.messages.get("s1", "none")) is None


async def positions_rise_by_one_in_each_session(store: Store) -> None:
    def work(tx: Transaction) -> list[int]:
        tx.sessions.insert(session("s1"))
        tx.sessions.insert(session("s2"))
        order = (("a", "s1"), ("b", "s2"), ("c", "s1"), ("d", "s1"))
        return [tx.messages.insert(message(name, where)).position for name, where in order]

    assert await store.write(work) == [1, 1, 2, 3]


async def needs_its_session(store: Store) -> None:
    with pytest.raises(GatewayError, match="there is no session"):
        await store.write(lambda tx: tx.messages.insert(message()))


async def pages_both_ways(store: Store) -> None:
    def fill(tx: Transaction) -> None:
        tx.sessions.insert(session())
        for number in range(1, 11):
            tx.messages.insert(message(f"m{number}"))

    await store.write(fill)

    async def page(after: int | None, newest_first: bool) -> list[int]:
        found, more = await store.read(
            lambda tx: tx.messages.page("s1", after=after, limit=4, newest_first=newest_first, generation=0)
        )
        assert more == (len(found) == 4)
        return [m.position for m in found]

    assert await page(None, False) == [1, 2, 3, 4]
    assert await page(8, False) == [9, 10]
    assert await page(None, True) == [10, 9, 8, 7]
    assert await page(3, True) == [2, 1]


async def keeps_the_generation_before_a_compaction(store: Store) -> None:
    def work(tx: Transaction) -> int:
        tx.sessions.insert(session())
        for number in range(1, 6):
            tx.messages.insert(message(f"m{number}"))
        replaced = tx.messages.replace_before("s1", 4, 2)
        tx.sessions.set_generation("s1", 2, 3, 9)
        # The summary takes the place of the last message it replaces.
        tx.messages.insert(message("summary", position=3))
        tx.messages.insert(message("m6"))
        return replaced

    assert await store.write(work) == 3
    present = await store.read(lambda tx: tx.messages.history("s1"))
    assert [(m.message_id, m.position) for m in present] == [("summary", 3), ("m4", 4), ("m5", 5), ("m6", 6)]

    async def ids(generation: int, newest_first: bool = False) -> list[str]:
        found, _ = await store.read(
            lambda tx: tx.messages.page("s1", after=None, limit=10, newest_first=newest_first, generation=generation)
        )
        return [m.message_id for m in found]

    assert await ids(0) == await ids(2) == [m.message_id for m in present]
    assert await ids(1) == ["m1", "m2", "m3", "m4", "m5"]
    assert await ids(1, newest_first=True) == ["m5", "m4", "m3", "m2", "m1"]


async def a_page_ends_with_the_message_that_makes_it_large(store: Store) -> None:
    texts = [PAGE_BYTES // 3] * 5 + [3 * PAGE_BYTES, 1, 1]

    def fill(tx: Transaction) -> None:
        tx.sessions.insert(session())
        for number, length in enumerate(texts, 1):
            # Two bytes each.
            block = ContentBlock(message_pb2.BLOCK_KIND_TEXT, "ä" * (length // 2))
            tx.messages.insert(message(f"m{number}", blocks=(block,)))

    await store.write(fill)
    pages, after, more = [], -1, True
    while more:
        found, more = await store.read(
            lambda tx, after=after: tx.messages.page("s1", after=after, limit=50, newest_first=False, generation=0)
        )
        pages.append([m.position for m in found])
        after = found[-1].position
    assert pages == [[1, 2, 3], [4, 5, 6], [7, 8]]
