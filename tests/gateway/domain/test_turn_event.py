"""A turn's events, built from what is stored."""

import pytest

from agentspace.v1 import error_pb2, message_pb2, turn_pb2, usage_pb2
from gateway.domain import turn_event
from gateway.domain.error import MAY_HAVE_EXECUTED, GatewayError
from gateway.domain.message import ContentBlock, Message
from gateway.domain.turn import CANCELLED, COMPLETED, FAILED, INTERRUPTED, REFUSED, Turn
from gateway.domain.usage import Charge, TokenCounts, TurnUsage

ERROR = GatewayError(
    error_pb2.ERROR_REASON_UPSTREAM_OVERLOADED,
    "overloaded",
    metadata={"status": "529"},
    retry_after_ms=1500,
    execution=MAY_HAVE_EXECUTED,
)


def turn(state: int, error: GatewayError | None = None, usage: TurnUsage | None = None) -> Turn:
    return Turn(
        "turn_1",
        "s",
        "msg_1",
        state,
        "m",
        1,
        answer_message_id="msg_2",
        stop_reason="end_turn",
        usage=usage or TurnUsage(),
        error=turn_event.turn_error(error) if error else None,
    )


def test_the_contract_says_what_is_retryable_for_every_reason() -> None:
    for reason in error_pb2.ErrorReason.values():
        assert isinstance(turn_event.is_retryable(reason), bool)
    assert turn_event.is_retryable(error_pb2.ERROR_REASON_UPSTREAM_OVERLOADED)
    assert not turn_event.is_retryable(error_pb2.ERROR_REASON_UPSTREAM_AUTH)


def test_a_stored_error_says_what_the_raised_one_said() -> None:
    answered = turn_event.error_message(ERROR)
    assert answered == turn_event.stored_error(turn_event.turn_error(ERROR))
    assert (answered.retryable, answered.retry_after_ms, answered.execution) == (True, 1500, MAY_HAVE_EXECUTED)
    assert dict(answered.metadata) == {"status": "529"}


@pytest.mark.parametrize("state", [FAILED, INTERRUPTED])
def test_a_turn_without_a_complete_answer_ends_with_its_error(state: int) -> None:
    event = turn_event.ended(turn(state, ERROR))
    assert isinstance(event, error_pb2.Error)
    assert (event.session_id, event.turn_id, event.code) == ("s", "turn_1", ERROR.reason)


@pytest.mark.parametrize("state", [COMPLETED, CANCELLED, REFUSED])
def test_a_turn_in_order_ends_with_its_sums(state: int) -> None:
    usage = TurnUsage(TokenCounts(3, 4, 5, 6, 7, 2, 1), Charge(11, 13, True, "v1"), attempts=1)
    event = turn_event.ended(turn(state, usage=usage))
    assert isinstance(event, turn_pb2.TurnEnded)
    assert (event.state, event.stop_reason, event.message_id) == (state, "end_turn", "msg_2")
    assert event.usage == usage_pb2.TokenUsage(
        input_tokens=18,
        output_tokens=7,
        total_tokens=25,
        uncached_input_tokens=3,
        cache_write_5m_tokens=4,
        cache_write_1h_tokens=5,
        cache_read_tokens=6,
        thinking_tokens=2,
        server_tool_requests=1,
    )
    cost = event.cost
    assert (cost.input_cost.pico_usd, cost.output_cost.pico_usd, cost.total_cost.pico_usd) == (11, 13, 24)
    assert (cost.priced, cost.price_version) == (True, "v1")
    assert event.usage_status == usage_pb2.USAGE_STATUS_FINAL


def test_a_turn_that_made_no_attempt_claims_no_count() -> None:
    event = turn_event.ended(turn(CANCELLED))
    assert isinstance(event, turn_pb2.TurnEnded)
    assert event.usage_status == usage_pb2.USAGE_STATUS_UNSPECIFIED


def test_an_unknown_price_is_absent_and_not_zero() -> None:
    cost = turn_event.cost(Charge(priced=False))
    assert not cost.priced
    assert not cost.HasField("total_cost")
    assert turn_event.cost(Charge()).HasField("total_cost")


def test_an_opaque_block_travels_as_json_and_others_as_text() -> None:
    opaque = turn_event.block(ContentBlock(message_pb2.BLOCK_KIND_OPAQUE, '{"a":1}', tool_name="search_result"))
    assert (opaque.raw_json, opaque.text, opaque.tool_name) == ('{"a":1}', "", "search_result")
    thinking = turn_event.block(ContentBlock(message_pb2.BLOCK_KIND_THINKING, "hm", signature="proof", complete=False))
    assert (thinking.text, thinking.raw_json, thinking.signature, thinking.complete) == ("hm", "", "proof", False)


def test_a_message_and_its_event_hold_the_stored_fields() -> None:
    block = ContentBlock(message_pb2.BLOCK_KIND_TEXT, "hello")
    stored = Message("msg_1", "s", "turn_1", message_pb2.ROLE_USER, (block,), "", 1_790_000_000_123)
    event = turn_event.message_committed(stored)
    assert event.turn_id == "turn_1"
    assert (event.message.message_id, event.message.session_id, event.message.role) == ("msg_1", "s", stored.role)
    assert event.message.blocks[0].text == "hello"
    assert event.message.created_at.ToMilliseconds() == 1_790_000_000_123
    assert turn_event.started(turn(COMPLETED)) == turn_pb2.TurnStarted(session_id="s", model="m", turn_id="turn_1")
