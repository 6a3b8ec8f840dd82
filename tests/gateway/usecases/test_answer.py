"""What a provider says becomes events at once."""

import pytest

from agentspace.v1 import turn_pb2
from gateway.domain.error import GatewayError
from gateway.domain.session_log import MERGE_LIMIT
from gateway.domain.turn_log import THINKING
from gateway.domain.usage import TokenCounts
from gateway.usecases import answer
from tests.gateway.usecases.house import House, numbers


async def test_each_delta_is_an_event_with_the_next_number_and_wakes_the_readers(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    reader.take()
    assert not reader.ready.is_set()
    call.say("one ")
    assert reader.ready.is_set()
    (first,) = reader.take()
    call.say("two ", "three")
    (second,) = reader.take()
    assert (first.delta, first.from_seq, first.seq) == ("one ", 3, 3)
    assert (second.delta, second.from_seq, second.seq) == ("two three", 4, 5)


async def test_what_only_continues_an_answer_is_not_wanted_soon(house: House) -> None:
    await house.send("hello")
    call = await house.gate.next()
    ((live, active),) = house.live.turns.values()
    woken: list[bool] = []

    class Watcher:
        def wake(self, soon: bool) -> None:
            woken.append(soon)

        def pulse(self, now: float) -> None: ...

    live.watchers.add(Watcher())
    call.say("one ")
    call.say("two ")
    call.sink.open_block(THINKING)
    call.say("three")
    assert woken == [True, False, False]
    call.end()
    await active.ended.wait()
    assert woken == [True, False, False, True]


@pytest.mark.parametrize(("kind", "phase"), [(THINKING, "THINKING"), (1, "STREAMING")])
async def test_the_phase_follows_what_the_provider_does(house: House, kind: int, phase: str) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    (active,) = (active for _, active in house.live.turns.values())
    assert active.phase == turn_pb2.TURN_PHASE_DISPATCHING
    call.sink.progress()
    assert active.phase == turn_pb2.TURN_PHASE_WAITING_FIRST_TOKEN
    call.sink.open_block(kind)  # type: ignore[arg-type]
    assert active.phase == turn_pb2.TurnPhase.Value(f"TURN_PHASE_{phase}")
    call.sink.progress()
    assert active.phase == turn_pb2.TurnPhase.Value(f"TURN_PHASE_{phase}")
    reader.close()


async def test_bytes_and_content_are_timed_apart(house: House) -> None:
    await house.send("hello")
    call = await house.gate.next()
    (active,) = (active for _, active in house.live.turns.values())
    assert active.upstream_at == 0
    call.say("a")
    assert active.content_at == active.upstream_at == house.clock.monotonic()
    house.clock.ms += 5000
    call.sink.progress()
    assert active.upstream_at == active.content_at + 5 == house.clock.monotonic()


async def test_blocks_are_numbered_and_completed(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.sink.open_block(THINKING)
    call.say("hm")
    call.sink.close_block("signed")
    call.sink.open_block(1)
    call.end("yes")
    await reader.all()
    (thought,), (text,) = reader.of(turn_pb2.ThinkingDelta), reader.of(turn_pb2.TextDelta)
    assert ((thought.block, thought.delta), (text.block, text.delta)) == ((0, "hm"), (1, "yes"))
    turn = await house.turns.get(reader.ack.turn_id)
    stored = await house.store.read(lambda tx: tx.turns.answer(turn.turn_id))
    assert stored is not None
    first, second = stored.content
    assert (first.signature, first.complete, second.complete) == ("signed", True, False)


async def test_the_newest_word_on_usage_holds(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.sink.usage(TokenCounts(uncached_input=3))
    call.sink.usage(TokenCounts(uncached_input=3, output=9))
    call.end("yes")
    await reader.all()
    assert (reader.last.usage.input_tokens, reader.last.usage.output_tokens) == (3, 9)


async def test_what_comes_at_once_is_cut_into_events_of_the_usual_size(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    reader.take()
    text = "".join(map(str, range(20_000)))
    call.say("a", text, "z")
    deltas = reader.take(len(text) + 2)
    assert max(len(event.delta) for event in deltas) <= 2 * MERGE_LIMIT
    assert "".join(event.delta for event in deltas) == f"a{text}z"
    assert numbers(deltas) == list(range(3, 3 + 2 + -(-len(text) // MERGE_LIMIT)))


async def test_an_answer_without_end_is_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "ANSWER_CHARACTERS", 10)
    await house.send("hello")
    call = await house.gate.next()
    call.say("five.", "five.")
    with pytest.raises(GatewayError, match="more than 10 characters"):
        call.say("!")
    (active,) = (active for _, active in house.live.turns.values())
    assert active.log.characters == 11


async def test_an_answer_without_end_is_ended_within_an_event(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "ANSWER_CHARACTERS", 3 * MERGE_LIMIT)
    await house.send("hello")
    call = await house.gate.next()
    with pytest.raises(GatewayError, match="more than"):
        call.say("x" * 4 * MERGE_LIMIT)
    (active,) = (active for _, active in house.live.turns.values())
    assert active.log.characters == 3 * MERGE_LIMIT + 1
