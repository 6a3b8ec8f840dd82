"""What every store must do with turns, their checkpoints and their answers."""

import pytest

from agentspace.v1 import error_pb2, message_pb2, turn_pb2, usage_pb2
from gateway.domain.error import GatewayError
from gateway.domain.message import ContentBlock
from gateway.domain.turn import TurnError, TurnPositions
from gateway.domain.usage import Charge, TokenCounts, TurnUsage
from gateway.usecases.ports import Checkpoint, Store, StoredAnswer, Transaction
from tests.gateway.storage.samples import message, session, turn

TEXT, THINKING = message_pb2.BLOCK_KIND_TEXT, message_pb2.BLOCK_KIND_THINKING
COMPLETED, QUEUED = turn_pb2.TURN_STATE_COMPLETED, turn_pb2.TURN_STATE_QUEUED

ENDED = turn(
    state=turn_pb2.TURN_STATE_FAILED,
    started_ms=2,
    ended_ms=3,
    answer_message_id="m2",
    stop_reason="max_tokens",
    usage=TurnUsage(
        TokenCounts(1, 2, 3, 4, 5, 6, 7), Charge(8, 9, False, "v"), usage_pb2.USAGE_STATUS_PARTIAL, attempts=2
    ),
    error=TurnError(
        error_pb2.ERROR_REASON_UPSTREAM_TRUNCATED,
        "cut",
        True,
        10,
        error_pb2.EXECUTION_MAY_HAVE_EXECUTED,
        (("a", "1"), ("b", "2")),
    ),
    positions=TurnPositions(4, 6, ((7, 3), (11, 1)), 12),
)


async def _sessions(store: Store, *names: str) -> None:
    await store.write(lambda tx: [tx.sessions.insert(session(name)) for name in names] and None)


async def gives_back_every_field(store: Store) -> None:
    await _sessions(store, "s1")
    whole = ENDED._replace(
        principal="p", idempotency_key="k", request_digest="d", cancel_when_unwatched=True, created_ms=77
    )
    await store.write(lambda tx: tx.turns.insert(whole))
    assert await store.read(lambda tx: tx.turns.get("t1")) == whole
    assert await store.read(lambda tx: tx.turns.get("none")) is None


async def update_writes_what_an_end_changes(store: Store) -> None:
    await _sessions(store, "s1")
    fresh = turn()
    await store.write(lambda tx: tx.turns.insert(fresh))
    assert await store.read(lambda tx: tx.turns.get("t1")) == fresh
    await store.write(lambda tx: tx.turns.update(ENDED))
    assert await store.read(lambda tx: tx.turns.get("t1")) == ENDED
    moved = TurnPositions(1, 2, (), 3)
    await store.write(lambda tx: tx.turns.set_positions("t1", moved))
    assert await store.read(lambda tx: tx.turns.get("t1")) == ENDED._replace(positions=moved)


async def needs_its_session_and_itself(store: Store) -> None:
    with pytest.raises(GatewayError, match="there is no session"):
        await store.write(lambda tx: tx.turns.insert(turn()))
    with pytest.raises(GatewayError, match="there is no turn"):
        await store.write(lambda tx: tx.turns.update(turn()))
    with pytest.raises(GatewayError, match="there is no turn"):
        await store.write(lambda tx: tx.turns.append_checkpoints([Checkpoint("t1", (), TurnPositions(), TurnUsage())]))


async def a_key_names_the_turn_it_was_used_for(store: Store) -> None:
    await _sessions(store, "s1")

    def work(tx: Transaction) -> None:
        tx.turns.insert(turn("t1", principal="p", idempotency_key="k", created_ms=100))
        tx.turns.insert(turn("t2", principal="q", idempotency_key="k", created_ms=100))
        tx.turns.insert(turn("t3", principal="p", created_ms=100))
        tx.turns.insert(turn("t4", principal="p", created_ms=100))

    await store.write(work)

    async def find(principal: str, key: str, not_before: int) -> str | None:
        found = await store.read(lambda tx: tx.turns.find_by_key(principal, key, not_before))
        return found.turn_id if found else None

    assert await find("p", "k", 100) == "t1"
    assert await find("q", "k", 0) == "t2"
    assert await find("r", "k", 0) is None
    assert await find("p", "", 0) is None
    # Too old: as if it had never been used, and it can be used again.
    assert await find("p", "k", 101) is None
    await store.write(lambda tx: tx.turns.insert(turn("t5", principal="p", idempotency_key="k", created_ms=200)))
    assert await find("p", "k", 101) == "t5"
    assert (await store.read(lambda tx: tx.turns.get("t1"))) is not None


async def an_unfinished_answer_is_what_its_checkpoints_hold(store: Store) -> None:
    await _sessions(store, "s1")
    await store.write(lambda tx: tx.turns.insert(turn()))
    assert await store.read(lambda tx: tx.turns.answer("t1")) is None
    steps = (
        Checkpoint(
            "t1",
            ((0, ContentBlock(THINKING, "hm", complete=False), (1, 1)),),
            TurnPositions(1, 2, ((3, 2),)),
            TurnUsage(),
        ),
        Checkpoint(
            "t1",
            (
                (0, ContentBlock(THINKING, "!", signature="sig"), (1,)),
                (1, ContentBlock(TEXT, "Hi", complete=False), (2,)),
            ),
            TurnPositions(1, 2, ((3, 4),)),
            TurnUsage(),
        ),
        Checkpoint(
            "t1",
            ((1, ContentBlock(TEXT, "x" * 300, complete=False), (300,)),),
            TurnPositions(1, 2, ((3, 5),)),
            ENDED.usage,
        ),
    )
    for step in steps:
        await store.write(lambda tx, step=step: tx.turns.append_checkpoints([step]))
    assert await store.read(lambda tx: tx.turns.answer("t1")) == StoredAnswer(
        (ContentBlock(THINKING, "hm!", signature="sig"), ContentBlock(TEXT, "Hi" + "x" * 300, complete=False)),
        ((1, 1, 1), (2, 300)),
    )
    stored = await store.read(lambda tx: tx.turns.get("t1"))
    assert stored is not None
    assert stored == turn(positions=TurnPositions(1, 2, ((3, 5),)), usage=ENDED.usage)


async def a_block_without_text_keeps_its_place_among_the_checkpoints(store: Store) -> None:
    """Nothing of it is in them, and whoever follows the answer knows its blocks by their number."""
    await _sessions(store, "s1")
    await store.write(lambda tx: tx.turns.insert(turn()))
    checkpoint = Checkpoint(
        "t1",
        ((1, ContentBlock(THINKING, "hm"), (2,)), (3, ContentBlock(TEXT, "Hi", complete=False), (1, 1))),
        TurnPositions(1, 2, ((3, 3),)),
        TurnUsage(),
    )
    await store.write(lambda tx: tx.turns.append_checkpoints([checkpoint]))
    empty = ContentBlock(TEXT, "")
    assert await store.read(lambda tx: tx.turns.answer("t1")) == StoredAnswer(
        (empty, ContentBlock(THINKING, "hm"), empty, ContentBlock(TEXT, "Hi", complete=False)),
        ((), (2,), (), (1, 1)),
    )


async def an_ended_answer_is_its_message_and_the_packed_lengths(store: Store) -> None:
    await _sessions(store, "s1")
    blocks = (ContentBlock(THINKING, ""), ContentBlock(TEXT, "a" * 20_000 + "bc"))
    lengths = ((), (20_000, 1, 1))
    await store.write(lambda tx: tx.turns.insert(turn()))
    checkpoint = Checkpoint("t1", ((0, ContentBlock(TEXT, "a"), (1,)),), TurnPositions(1), TurnUsage())
    await store.write(lambda tx: tx.turns.append_checkpoints([checkpoint]))

    def end(tx: Transaction) -> None:
        tx.messages.insert(message("m2", blocks=blocks, role=message_pb2.ROLE_ASSISTANT))
        tx.turns.finish(ENDED, lengths)

    await store.write(end)
    assert await store.read(lambda tx: (tx.turns.get("t1"), tx.turns.answer("t1"))) == (
        ENDED,
        StoredAnswer(blocks, lengths),
    )


async def unfinished_turns_come_in_the_order_they_were_accepted(store: Store) -> None:
    await _sessions(store, "s1", "s2")

    def work(tx: Transaction) -> None:
        tx.turns.insert(turn("t9", "s1", created_ms=50))
        tx.turns.insert(turn("t5", "s2", created_ms=40))
        tx.turns.insert(turn("t7", "s1", created_ms=30, state=QUEUED))
        tx.turns.insert(turn("t6", "s1", created_ms=20, state=QUEUED))
        tx.turns.insert(turn("t8", "s1", created_ms=10, state=COMPLETED))

    await store.write(work)
    assert [t.turn_id for t in await store.read(lambda tx: tx.turns.unfinished())] == ["t9", "t5", "t7", "t6"]
    assert [t.turn_id for t in await store.read(lambda tx: tx.turns.unfinished("s1"))] == ["t9", "t7", "t6"]


async def after_gives_ended_turns_by_their_first_event(store: Store) -> None:
    await _sessions(store, "s1", "s2")
    spans = {"a": (1, 9), "b": (3, 20), "c": (5, 7), "d": (21, 30), "e": (31, 40)}

    def work(tx: Transaction) -> None:
        for name, (first, last) in reversed(spans.items()):
            tx.turns.insert(turn(name, state=COMPLETED, positions=TurnPositions(first, first + 1, (), last)))
        tx.turns.insert(turn("running", positions=TurnPositions(41, 42)))
        tx.turns.insert(turn("other", "s2", state=COMPLETED, positions=TurnPositions(1, 2, (), 3)))

    await store.write(work)

    async def after(seq: int, limit: int = 9) -> list[str]:
        return [t.turn_id for t in await store.read(lambda tx: tx.turns.after("s1", seq, limit))]

    assert await after(0) == ["a", "b", "c", "d", "e"]
    assert await after(0, 2) == ["a", "b"]
    assert await after(7) == ["a", "b", "d", "e"]
    assert await after(19) == ["b", "d", "e"]
    assert await after(40) == []


async def pages_newest_first(store: Store) -> None:
    await _sessions(store, "s1", "s2")

    def work(tx: Transaction) -> None:
        for number in range(10):
            tx.turns.insert(turn(f"t{number}", created_ms=number // 2))
        tx.turns.insert(turn("other", "s2"))

    await store.write(work)
    first = await store.read(lambda tx: tx.turns.page("s1", after=None, limit=3))
    assert [t.turn_id for t in first] == ["t9", "t8", "t7"]
    rest = await store.read(lambda tx: tx.turns.page("s1", after=(3, "t7"), limit=99))
    assert [t.turn_id for t in rest] == [f"t{number}" for number in reversed(range(7))]
