"""A turn is generated once, ends once, and its end is stored before it is told."""

import asyncio
from typing import Any

import pytest

from agentspace.v1 import error_pb2, turn_pb2, usage_pb2
from gateway.domain.context import PromptMessage
from gateway.domain.error import MAY_HAVE_EXECUTED, NOT_STARTED
from gateway.domain.turn import CANCELLED, COMPLETED, FAILED, INTERRUPTED, REFUSED
from gateway.domain.usage import TokenCounts
from gateway.usecases import run_turn
from gateway.usecases.live_sessions import Stopped
from gateway.usecases.ports import AnswerSink, Ending, ModelRequest
from gateway.usecases.run_turn import interrupted
from tests.gateway.usecases.house import SECONDS, GatedProvider, House, Weak
from tests.gateway.usecases.rooms import StillClock, refused


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_turn, "RETRY_DELAYS", (0.0, 0.0))


async def rows(house: House) -> list[tuple[int, str, int]]:
    found = await house.store.read(lambda tx: tx.usage.page(None, after=None, limit=100))
    return [(row.attempt, row.outcome, row.status) for row in reversed(found)]


async def test_the_provider_gets_the_conversation_and_the_answer_is_stored_with_its_usage(house: House) -> None:
    first = await house.answered("one", "1")
    session = first.ack.session_id
    second = await house.send("two", session)
    call = await house.gate.next()
    expected = [("user", "one"), ("assistant", "1"), ("user", "two")]
    assert list(call.request.messages) == [PromptMessage(*pair) for pair in expected]
    assert (call.request.model, call.request.max_tokens, call.request.key) == ("echo", 4096, None)
    call.sink.usage(TokenCounts(uncached_input=5, output=2))
    call.end("2")
    await second.all()
    turn = await house.turns.get(second.ack.turn_id)
    assert (turn.state, turn.usage.counts.total, turn.usage.attempts) == (COMPLETED, 7, 1)
    assert house.ended[-1] == turn
    totals = await house.store.read(lambda tx: tx.usage.totals(session))
    assert sum(total.input_tokens + total.output_tokens for total in totals.values()) == 7
    final = usage_pb2.USAGE_STATUS_FINAL
    assert await rows(house) == [(1, "completed", final), (1, "completed", final)]


@pytest.mark.parametrize("reason", ["UPSTREAM_OVERLOADED", "UPSTREAM_UNREACHABLE"])
async def test_what_did_not_reach_the_provider_is_tried_three_times(house: House, reason: str) -> None:
    reader = await house.send("hello")
    for _ in range(3):
        (await house.gate.next()).fail(reason, execution=NOT_STARTED)
    await reader.all()
    assert reader.last.code == error_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")
    assert [(attempt, outcome) for attempt, outcome, _ in await rows(house)] == [(n, reason) for n in (1, 2, 3)]


async def test_an_attempt_that_may_have_been_billed_is_not_forgotten_by_the_next(house: House) -> None:
    reader = await house.send("hello")
    (await house.gate.next()).fail("UPSTREAM_OVERLOADED", retry_after_ms=1)
    (await house.gate.next()).fail("UPSTREAM_REJECTED", execution=NOT_STARTED)
    await reader.all()
    assert reader.last.execution == MAY_HAVE_EXECUTED
    stored = await house.store.read(lambda tx: tx.usage.page(None, after=None, limit=9))
    assert [row.status for row in stored] == [usage_pb2.USAGE_STATUS_FINAL, usage_pb2.USAGE_STATUS_ESTIMATED]


async def test_a_second_attempt_may_succeed(house: House) -> None:
    reader = await house.send("hello")
    (await house.gate.next()).fail("UPSTREAM_OVERLOADED", retry_after_ms=1)
    (await house.gate.next()).end("yes")
    await reader.all()
    assert (reader.text, reader.last.state) == ("yes", COMPLETED)
    assert [outcome for _, outcome, _ in await rows(house)] == ["UPSTREAM_OVERLOADED", "completed"]


@pytest.mark.parametrize(
    ("reason", "retry_after_ms"),
    [
        ("UPSTREAM_RATE_LIMITED", 0),
        ("UPSTREAM_RATE_LIMITED", run_turn.LONGEST_RETRY_AFTER_MS + 1),
        ("UPSTREAM_AUTH", 0),
        ("UPSTREAM_TRUNCATED", 0),
    ],
)
async def test_what_another_attempt_does_not_help_is_final(house: House, reason: str, retry_after_ms: int) -> None:
    reader = await house.send("hello")
    (await house.gate.next()).fail(reason, retry_after_ms)
    await reader.all()
    assert (reader.last.retry_after_ms, len(house.gate.calls)) == (retry_after_ms, 1)


async def test_a_rate_limit_that_says_when_is_waited_for(house: House) -> None:
    reader = await house.send("hello")
    (await house.gate.next()).fail("UPSTREAM_RATE_LIMITED", 1)
    (await house.gate.next()).end("yes")
    await reader.all()
    assert reader.text == "yes"


@pytest.mark.parametrize("said", [False, True])
async def test_after_the_first_byte_there_is_no_second_attempt(house: House, said: bool) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.sink.progress()
    if said:
        call.say("half an answer")
    call.fail("UPSTREAM_OVERLOADED")
    await reader.all()
    assert (len(house.gate.calls), reader.text) == (1, "half an answer" if said else "")
    turn = await house.turns.get(reader.ack.turn_id)
    assert (turn.state, bool(turn.answer_message_id)) == (FAILED, said)
    assert [(outcome, status) for _, outcome, status in await rows(house)] == [
        ("UPSTREAM_OVERLOADED", usage_pb2.USAGE_STATUS_ESTIMATED)
    ]
    assert turn.usage.counts.output == (3 if said else 0)


async def test_cancelling_between_two_attempts_makes_no_further_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_turn, "RETRY_DELAYS", (60.0, 60.0))
    reader = await house.send("hello")
    (await house.gate.next()).fail("UPSTREAM_OVERLOADED", execution=NOT_STARTED)
    (active,) = (active for _, active in house.live.turns.values())
    async with asyncio.timeout(SECONDS):
        while not active.dispatched_at or len(house.gate.calls) != 1 or not house.gate.calls[0].outcome.done():
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await house.cancel.turn(reader.ack.turn_id)).state == CANCELLED
    assert [outcome for _, outcome, _ in await rows(house)] == ["UPSTREAM_OVERLOADED"]


async def test_a_refused_answer_is_kept_and_never_sent_again(house: House) -> None:
    reader = await house.send("how?")
    (await house.gate.next()).end("First you", stop_reason="refusal")
    await reader.all()
    assert (reader.last.state, reader.last.stop_reason, reader.text) == (REFUSED, "refusal", "First you")
    session = reader.ack.session_id
    history = await house.store.read(lambda tx: tx.messages.history(session))
    assert [message.blocks[0].text for message in history] == ["how?", "First you"]
    await house.send("else?", session)
    assert (await house.gate.next()).request.messages == (PromptMessage("user", "else?"),)


class Broken(GatedProvider):
    async def generate(self, request: ModelRequest, sink: AnswerSink) -> Ending:
        sink.delta("x")
        raise ZeroDivisionError


async def test_a_bug_ends_its_turn_and_not_the_session(weak: Weak, caplog: pytest.LogCaptureFixture) -> None:
    house = House(weak, provider=Broken())
    session = ""
    for _ in range(2):
        reader = await house.send("hello", session)
        session = reader.ack.session_id
        await reader.all()
        assert reader.last.code == error_pb2.ERROR_REASON_INTERNAL
    assert caplog.text.count("ZeroDivisionError") >= 2


async def test_the_end_is_told_only_when_it_is_stored(house: House, weak: Weak) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    weak.refusing = True
    call.end("yes")
    async with asyncio.timeout(SECONDS):
        await weak.refused.wait()
    reader.take()
    assert (reader.text, reader.feed.done) == ("yes", False)
    weak.refusing = False
    await reader.all()
    assert reader.last.state == COMPLETED


async def test_the_queue_runs_in_order_each_after_the_end_before_it(house: House) -> None:
    first = await house.send("1")
    readers = [await house.send(word, first.ack.session_id, on_busy="QUEUE") for word in "234"]
    for word in "1234":
        call = await house.gate.next()
        assert (call.question, len(house.gate.calls)) == (word, int(word))
        call.end(f"answer {word}")
    for reader in readers:
        await reader.all()
    assert [message.text for message in house.gate.calls[3].request.messages] == [
        *("1", "answer 1", "2", "answer 2", "3", "answer 3"),
        "4",
    ]


async def test_a_queued_turn_waits_for_the_database_instead_of_failing(house: House, weak: Weak) -> None:
    first = await house.send("1")
    call = await house.gate.next()
    second = await house.send("2", first.ack.session_id, on_busy="QUEUE")
    writes = 0
    write = weak.write

    async def second_write_fails(work: object) -> object:
        nonlocal writes
        writes += 1
        weak.refusing = writes == 2
        return await write(work)  # type: ignore[arg-type]

    weak.write = second_write_fails  # type: ignore[method-assign,assignment]
    call.end("x")
    (await house.gate.next()).end("y")
    await second.all()
    assert (second.last.state, writes >= 3) == (COMPLETED, True)


async def test_a_turn_whose_model_is_gone_fails_and_the_queue_goes_on(house: House) -> None:
    first = await house.send("1")
    call = await house.gate.next()
    lost = await house.send("2", first.ack.session_id, on_busy="QUEUE", model="scripted/story")
    third = await house.send("3", first.ack.session_id, on_busy="QUEUE")
    _, active = house.live.turns[lost.ack.turn_id]
    active.turn = active.turn._replace(model="scripted/gone")
    call.end("x")
    await lost.all()
    assert lost.last.code == error_pb2.ERROR_REASON_MODEL_NOT_FOUND
    (await house.gate.next()).end("z")
    await third.all()
    assert third.last.state == COMPLETED


async def test_going_down_keeps_the_text_and_leaves_the_queue(house: House) -> None:
    first = await house.send("1")
    call = await house.gate.next()
    await house.send("2", first.ack.session_id, on_busy="QUEUE")
    call.say("half")
    house.run.draining = True
    (live,) = house.live
    assert live.running is not None
    house.run.stop(live.running, interrupted(live.running.turn.turn_id))
    house.run.stop(live.running, Stopped(CANCELLED))  # only the first reason counts
    await first.all()
    assert (first.last.code, first.text) == (error_pb2.ERROR_REASON_TURN_INTERRUPTED, "half")
    assert (await house.turns.get(first.ack.turn_id)).state == INTERRUPTED
    assert (len(house.gate.calls), len(live.queued)) == (1, 1)


@pytest.mark.parametrize("how", ["cut off", "cancelled"])
async def test_an_attempt_that_may_have_been_billed_is_an_estimate(house: House, how: str) -> None:
    reader = await house.send("four words of mine")
    call = await house.gate.next()
    if how == "cut off":
        call.fail("UPSTREAM_TRUNCATED")
        await reader.all()
    else:
        await house.cancel.turn(reader.ack.turn_id)
    (row,) = await house.store.read(lambda tx: tx.usage.page(None, after=None, limit=9))
    assert (row.status, row.counts) == (usage_pb2.USAGE_STATUS_ESTIMATED, TokenCounts(uncached_input=4))


async def test_an_attempt_that_was_refused_is_final_and_free(house: House) -> None:
    reader = await house.send("hello")
    (await house.gate.next()).fail("UPSTREAM_AUTH", execution=NOT_STARTED)
    await reader.all()
    (row,) = await house.store.read(lambda tx: tx.usage.page(None, after=None, limit=9))
    assert (row.status, row.counts) == (usage_pb2.USAGE_STATUS_FINAL, TokenCounts())


async def test_an_end_that_cannot_be_stored_as_it_was_ends_the_turn_all_the_same(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    # More than the database's integers hold.
    call.sink.usage(TokenCounts(output=2**63))
    call.end("text")
    await reader.all()
    assert reader.last.code == error_pb2.ERROR_REASON_INTERNAL
    await house.answered("again", "fine", session=reader.ack.session_id)


async def test_a_session_of_which_no_end_can_be_stored_is_closed_until_the_next_start(weak: Weak) -> None:
    house = House(weak)
    first = await house.send("hello")
    session = first.ack.session_id
    call = await house.gate.next()
    call.say("text")
    queued = await house.send("more", session, on_busy="QUEUE")
    weak.reason, weak.refusing = "INTERNAL", True
    call.end()
    for reader in (first, queued):
        await reader.all()
        assert reader.last.code == error_pb2.ERROR_REASON_INTERNAL
        reader.close()
    weak.refusing = False
    # No number that was announced is given again, so nobody goes on with it.
    for _ in range(2):
        await refused(house.send("again", session), "INTERNAL")
        await refused(house.watch(session), "INTERNAL")
    assert {(await house.cancel.turn(r.ack.turn_id)).state for r in (first, queued)} == {FAILED}
    await house.kill()
    after = House(weak)
    await after.recover()
    (await after.gate.next()).end("yes")
    await after.settled()
    watcher = await after.watch(session, first.last.epoch, first.last.seq)
    assert watcher.take()[0].reason == turn_pb2.RESET_REASON_EPOCH_CHANGED
    await after.answered("again", "fine", session=session)


async def test_a_queued_turn_whose_failure_cannot_be_stored_closes_the_session(weak: Weak) -> None:
    house = House(weak)
    first = await house.send("hello")
    call = await house.gate.next()
    queued = await house.send("more", first.ack.session_id, on_busy="QUEUE")
    finish = house.run.finish

    async def breaks_next(*args: Any, **how: Any) -> None:
        await finish(*args, **how)
        weak.reason, weak.refusing = "INTERNAL", True

    house.run.finish = breaks_next  # type: ignore[method-assign]
    call.end("yes")
    await queued.all()
    assert queued.last.code == error_pb2.ERROR_REASON_INTERNAL
    weak.refusing = False
    await refused(house.send("again", first.ack.session_id), "INTERNAL")


async def test_our_own_wait_is_not_the_providers_silence(house: House, clock: StillClock) -> None:
    reader = await house.send("hello")
    (await house.gate.next()).fail("UPSTREAM_OVERLOADED", 20_000, NOT_STARTED)
    (active,) = (active for _, active in house.live.turns.values())
    async with asyncio.timeout(SECONDS):
        while active.dispatched_at <= clock.monotonic():
            await asyncio.sleep(0)
    clock.ms += 125_000
    house.pulse.beat()
    assert active.stop is None
    await house.cancel.turn(reader.ack.turn_id)


@pytest.mark.parametrize(
    ("told", "status", "counts"),
    [
        (TokenCounts(9, output=1), usage_pb2.USAGE_STATUS_PARTIAL, TokenCounts(9, output=3)),
        (TokenCounts(output=4), usage_pb2.USAGE_STATUS_ESTIMATED, TokenCounts(2, output=4)),
        (None, usage_pb2.USAGE_STATUS_ESTIMATED, TokenCounts(2, output=3)),
    ],
)
async def test_an_answer_whose_end_told_no_count_is_an_estimate(
    house: House, told: TokenCounts | None, status: int, counts: TokenCounts
) -> None:
    reader = await house.send("hello there")
    call = await house.gate.next()
    if told is not None:
        call.sink.usage(told)
    call.say("one two three")
    call.outcome.set_result(Ending("end_turn", counted=False))
    await reader.all()
    (row,) = await house.store.read(lambda tx: tx.usage.page(None, after=None, limit=9))
    assert (row.status, row.counts, row.outcome) == (status, counts, "completed")
