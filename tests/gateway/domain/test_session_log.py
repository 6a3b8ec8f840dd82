"""The session log: every event once, in order, whatever was interleaved and wherever the reading starts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentspace.v1 import error_pb2, message_pb2, turn_pb2
from gateway.domain import session_log
from gateway.domain.message import ContentBlock, Message
from gateway.domain.session_log import SessionLog
from gateway.domain.turn import TurnPositions
from gateway.domain.turn_log import TEXT, THINKING, TOOL_USE, TurnLog

EPOCH = 3
DELTAS = (turn_pb2.TextDelta, turn_pb2.ThinkingDelta, turn_pb2.ToolDelta)
KIND_OF = {turn_pb2.TextDelta: TEXT, turn_pb2.ThinkingDelta: THINKING, turn_pb2.ToolDelta: TOOL_USE}
TURNS = ("turn_1", "turn_2", "turn_3")

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["message", "started", "ended", "failed"]), st.sampled_from(TURNS)),
        st.tuples(st.just("block"), st.sampled_from(TURNS), st.sampled_from([TEXT, THINKING, TOOL_USE])),
        st.tuples(st.just("delta"), st.sampled_from(TURNS), st.lists(st.text(max_size=6), min_size=1, max_size=4)),
    ),
    max_size=60,
)


def question(turn: str) -> Message:
    return Message("msg_2", "s", turn, message_pb2.ROLE_USER, (ContentBlock(TEXT, "Why?"),), "", 1000)


def build(script: list[Any], last_seq: int) -> tuple[SessionLog, list[tuple[Any, ...]]]:
    """A log and what was put into it: an item for each event, in order."""
    log = SessionLog(EPOCH, last_seq)
    turns = {turn: TurnLog(turn, "msg", "m") for turn in TURNS}
    events: list[tuple[Any, ...]] = []
    for what, turn, *rest in script:
        turn_log = turns[turn]
        if what == "message":
            log.append_message(question(turn))
        elif what == "started":
            log.append_started(turn_pb2.TurnStarted(turn_id=turn))
        elif what == "ended":
            log.append_ended(turn_pb2.TurnEnded(turn_id=turn))
        elif what == "failed":
            log.append_ended(error_pb2.Error(turn_id=turn))
        elif what == "block":
            turn_log.open_block(rest[0])
        else:
            if not turn_log.blocks:
                turn_log.open_block(TEXT)
            for chunk in rest[0]:
                turn_log.append(chunk)
                events.append(("delta", turn, turn_log.blocks[-1].kind, turn_log.blocks[-1].index, chunk))
            log.append_deltas(turn_log, len(rest[0]))
        if what not in ("block", "delta"):
            events.append((what, turn))
    return log, events


def names(event: session_log.Event) -> tuple[str, str]:
    kinds = {turn_pb2.MessageCommitted: "message", turn_pb2.TurnStarted: "started", turn_pb2.TurnEnded: "ended"}
    return kinds.get(type(event), "failed"), event.turn_id


def check(read: list[session_log.Event], expected: list[tuple[Any, ...]], after: int) -> None:
    """`read` is exactly `expected`, whose first event has the number `after` + 1, or a beginning of it."""
    at = 0
    for event in read:
        assert event.epoch == EPOCH
        if isinstance(event, DELTAS):
            assert event.from_seq == after + at + 1
            covered = expected[at : at + event.seq - event.from_seq + 1]
            assert {item[:4] for item in covered} == {("delta", event.turn_id, KIND_OF[type(event)], event.block)}
            assert event.delta == "".join(item[4] for item in covered)
            at += len(covered)
        else:
            at += 1
            assert event.seq == after + at
            assert names(event) == expected[at - 1]
    assert at <= len(expected)


@given(steps, st.integers(0, 5), st.data())
def test_reading_gives_exactly_the_events_after_the_position(
    script: list[Any], start: int, data: st.DataObject
) -> None:
    log, events = build(script, start)
    assert log.last_seq == start + len(events)
    after = data.draw(st.integers(start, log.last_seq))
    read = list(log.read(after, 10**9))
    check(read, events[after - start :], after)
    assert not read or read[-1].seq == log.last_seq
    assert bool(read) == (after < log.last_seq)


@given(steps, st.integers(1, 300))
def test_reading_in_small_slices_misses_and_repeats_nothing(script: list[Any], limit: int) -> None:
    log, events = build(script, 0)
    at = 0
    while at < log.last_seq:
        read = list(log.read(at, limit))
        assert read
        check(read, events[at:], at)
        at = read[-1].seq
    assert at == len(events)


@given(steps, st.data())
def test_what_is_dropped_was_before_the_floor_and_the_rest_is_untouched(script: list[Any], data: st.DataObject) -> None:
    log, events = build(script, 0)
    log.drop_before(data.draw(st.integers(0, log.last_seq + 1)))
    assert log.last_seq == len(events)
    after = data.draw(st.integers(log.floor, log.last_seq))
    read = list(log.read(after, 10**9))
    check(read, events[after:], after)
    assert not read or read[-1].seq == log.last_seq


@given(steps)
def test_positions_are_the_numbers_of_a_turns_events(script: list[Any]) -> None:
    log, events = build(script, 0)
    for turn in TURNS:
        positions = log.positions(turn)
        runs = [seq for first, count in positions.deltas for seq in range(first, first + count)]
        assert runs == [seq for seq, item in enumerate(events, 1) if item[:2] == ("delta", turn)]
        ends = [seq for seq, item in enumerate(events, 1) if item[0] in ("ended", "failed") and item[1] == turn]
        assert positions.ended == (ends[-1] if ends else 0)


def test_a_whole_answer_is_one_entry_and_neighbouring_deltas_one_event() -> None:
    log, turn = SessionLog(EPOCH, 0), TurnLog("turn_1", "msg", "m")
    turn.open_block(TEXT)
    for index in range(1000):
        turn.append(str(index % 10))
        log.append_deltas(turn)
    assert len(log.entries) == 1
    (event,) = log.read(10, 10**9)
    assert isinstance(event, turn_pb2.TextDelta)
    assert (event.from_seq, event.seq, len(event.delta)) == (11, 1000, 990)


def test_merged_deltas_stay_about_the_limit() -> None:
    log, turn = SessionLog(EPOCH, 0), TurnLog("turn_1", "msg", "m")
    turn.open_block(TEXT)
    for _ in range(10):
        turn.append("x" * (session_log.MERGE_LIMIT // 2))
        log.append_deltas(turn)
    assert [len(event.delta) for event in log.read(0, 10**9) if isinstance(event, turn_pb2.TextDelta)] == [
        session_log.MERGE_LIMIT
    ] * 5


def test_tool_deltas_name_their_call() -> None:
    log, turn = SessionLog(EPOCH, 0), TurnLog("turn_1", "msg", "m")
    turn.open_block(TOOL_USE, "call_1", "search")
    turn.append("{}")
    log.append_deltas(turn)
    (event,) = log.read(0, 100)
    assert event == turn_pb2.ToolDelta(
        delta="{}", turn_id="turn_1", epoch=EPOCH, from_seq=1, seq=1, tool_use_id="call_1", tool_name="search"
    )


def test_a_message_accepted_in_the_middle_of_an_answer_splits_it() -> None:
    log, turn = SessionLog(EPOCH, 0), TurnLog("turn_1", "msg", "m")
    turn.open_block(TEXT)
    turn.append("one ")
    log.append_deltas(turn)
    assert log.append_message(question("turn_2")) == 2
    turn.append("two")
    log.append_deltas(turn)
    assert log.positions("turn_1") == TurnPositions(deltas=((1, 1), (3, 1)))
    first, asked, second = log.read(0, 10**9)
    assert [event.seq for event in (first, asked, second)] == [1, 2, 3]
    assert isinstance(asked, turn_pb2.MessageCommitted)
    assert (asked.message.content, asked.turn_id) == ("Why?", "turn_2")


@pytest.mark.parametrize("last_seq", [0, 41])
def test_a_restored_stretch_reads_like_the_live_one(last_seq: int) -> None:
    log, events = build([("message", "turn_1"), ("delta", "turn_1", ["a", "b"]), ("ended", "turn_1")], last_seq)
    again = SessionLog.restore(EPOCH, log.entries, log.last_seq)
    assert (again.floor, again.last_seq) == (last_seq, last_seq + len(events))
    check(list(again.read(last_seq, 10**9)), events, last_seq)
