"""convert.py: every field of a stored value reaches the contract's message."""

import pytest

from agentspace.v1 import error_pb2, turn_pb2, usage_pb2
from gateway.domain.audit import AuditEvent
from gateway.domain.session import Session
from gateway.domain.turn import Turn, TurnError, TurnPositions
from gateway.domain.usage import Charge, ModelTotal, TokenCounts, TurnUsage, UsageRecord
from gateway.rpc import convert
from gateway.usecases.ports import SealedKey

COUNTS = TokenCounts(1, 2, 3, 4, 5, 6, 7)
CHARGE = Charge(10, 20, True, "2026-01")


def test_timestamp() -> None:
    stamp = convert.timestamp(1_790_000_000_123)
    assert stamp is not None
    assert (stamp.seconds, stamp.nanos) == (1_790_000_000, 123_000_000)
    assert convert.timestamp(0) is None


def test_session() -> None:
    stored = Session("s", "a", "m", 1001, 2002, "t", "p", 3, 4, 5, 6, 7007, "f", 8)
    message = convert.session(stored)
    assert message.session_key == "agent:a:s"
    times = message.created_at, message.updated_at, message.deleted_at
    assert [(at.seconds, at.nanos) for at in times] == [(1, 1_000_000), (2, 2_000_000), (7, 7_000_000)]
    assert (message.session_id, message.agent_id, message.model, message.title) == ("s", "a", "m", "t")
    assert (message.system_prompt, message.message_count, message.etag) == ("p", 3, "4")
    assert (message.forked_from, message.generation) == ("f", 8)
    assert len(message.ListFields()) == len(message.DESCRIPTOR.fields)


def test_living_session_has_no_time_of_deletion() -> None:
    assert not convert.session(Session("s", "a", "m", 1, 1)).HasField("deleted_at")


def test_turn() -> None:
    error = TurnError(error_pb2.ERROR_REASON_INTERNAL, "why", False, 0, 1, (("a", "b"),))
    stored = Turn(
        "t",
        "s",
        "q",
        turn_pb2.TURN_STATE_FAILED,
        "m",
        1000,
        started_ms=2000,
        ended_ms=3000,
        answer_message_id="w",
        stop_reason="end_turn",
        usage=TurnUsage(COUNTS, CHARGE, usage_pb2.USAGE_STATUS_FINAL, 2),
        error=error,
        positions=TurnPositions(1, 2, ((3, 4),), 9),
    )
    message = convert.turn(stored)
    assert len(message.ListFields()) == len(message.DESCRIPTOR.fields)
    assert (message.state, message.attempts, message.last_seq) == (turn_pb2.TURN_STATE_FAILED, 2, 9)
    assert (message.usage.input_tokens, message.cost.total_cost.pico_usd) == (10, 30)
    assert (message.error.code, dict(message.error.metadata)) == (error_pb2.ERROR_REASON_INTERNAL, {"a": "b"})


@pytest.mark.parametrize("priced", [True, False])
def test_usage_record(priced: bool) -> None:
    charge = CHARGE if priced else Charge(priced=False)
    status = usage_pb2.USAGE_STATUS_FINAL
    message = convert.usage_record(UsageRecord("s", "t", 1, "m", "p", COUNTS, charge, status, "completed", 1000, 5))
    assert len(message.ListFields()) == len(message.DESCRIPTOR.fields)
    assert message.cost.priced is priced
    assert message.cost.HasField("total_cost") is priced
    assert message.usage.total_tokens == 15


def test_model_usage() -> None:
    message = convert.model_usage(ModelTotal(1, 2, 3, 4, 5))
    assert (message.input_tokens, message.output_tokens, message.total_tokens) == (1, 2, 3)
    assert (message.total_cost.pico_usd, message.request_count, message.unpriced_count) == (3, 4, 5)


def test_provider_key_shows_no_key() -> None:
    message = convert.provider_key(SealedKey("anthropic", b"sealed", "…1234", 1000))
    assert (message.provider, message.masked, message.created_at.seconds) == ("anthropic", "…1234", 1)
    assert not message.HasField("last_used_at")
    assert b"sealed" not in message.SerializeToString()


def test_audit_event() -> None:
    message = convert.audit_event(AuditEvent(1000, "operator", "key.read", "anthropic", "ok", 7))
    assert len(message.ListFields()) == len(message.DESCRIPTOR.fields)
    assert (message.event_id, message.principal, message.outcome) == (7, "operator", "ok")
