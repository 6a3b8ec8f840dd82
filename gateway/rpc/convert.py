"""Domain values as the contract's messages. Called by the services; events of turns are built in domain.turn_event."""

from google.protobuf import timestamp_pb2

from agentspace.v1 import audit_service_pb2, key_service_pb2, session_pb2, turn_pb2, usage_pb2, usage_service_pb2
from gateway.domain import turn_event
from gateway.domain.audit import AuditEvent
from gateway.domain.session import Session
from gateway.domain.turn import Turn
from gateway.domain.usage import ModelTotal, UsageRecord
from gateway.usecases.ports import SealedKey


def timestamp(milliseconds: int) -> timestamp_pb2.Timestamp | None:
    """Unix milliseconds; 0 is absent."""
    if not milliseconds:
        return None
    seconds, rest = divmod(milliseconds, 1000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=rest * 1_000_000)


def session(stored: Session) -> session_pb2.Session:
    """A session."""
    result = session_pb2.Session()
    fill_session(result, stored)
    return result


def fill_session(result: session_pb2.Session, stored: Session) -> None:
    """Write a session into an empty message. Field by field and in its place: a page is full of sessions, and making
    each with keywords and copying it costs half as much again. To write an empty text costs as much as any other, and
    to call a function as much as two."""
    result.session_id = stored.session_id
    result.session_key = stored.key
    result.agent_id = stored.agent_id
    result.model = stored.model
    result.message_count = stored.message_count
    if stored.title:
        result.title = stored.title
    if stored.system_prompt:
        result.system_prompt = stored.system_prompt
    result.etag = stored.etag
    if stored.forked_from:
        result.forked_from = stored.forked_from
    result.generation = stored.generation
    at, milliseconds = result.created_at, stored.created_ms
    at.seconds, at.nanos = milliseconds // 1000, milliseconds % 1000 * 1_000_000
    at, milliseconds = result.updated_at, stored.updated_ms
    at.seconds, at.nanos = milliseconds // 1000, milliseconds % 1000 * 1_000_000
    if stored.deleted_ms:
        result.deleted_at.FromMilliseconds(stored.deleted_ms)


def turn(stored: Turn) -> turn_pb2.Turn:
    """A turn."""
    return turn_pb2.Turn(
        turn_id=stored.turn_id,
        session_id=stored.session_id,
        message_id=stored.message_id,
        answer_message_id=stored.answer_message_id,
        state=stored.state,
        model=stored.model,
        created_at=timestamp(stored.created_ms),
        started_at=timestamp(stored.started_ms),
        ended_at=timestamp(stored.ended_ms),
        stop_reason=stored.stop_reason,
        usage=turn_event.tokens(stored.usage.counts),
        cost=turn_event.cost(stored.usage.charge),
        error=turn_event.stored_error(stored.error) if stored.error else None,
        attempts=stored.usage.attempts,
        last_seq=stored.positions.ended,
        may_have_been_billed=stored.may_have_been_billed,
    )


def usage_record(stored: UsageRecord) -> usage_service_pb2.UsageRecord:
    """A row of the ledger."""
    return usage_service_pb2.UsageRecord(
        record_id=stored.record_id,
        session_id=stored.session_id,
        turn_id=stored.turn_id,
        attempt=stored.attempt,
        model=stored.model,
        provider=stored.provider,
        usage=turn_event.tokens(stored.counts),
        cost=turn_event.cost(stored.charge),
        status=stored.status,
        outcome=stored.outcome,
        created_at=timestamp(stored.created_ms),
    )


def model_usage(total: ModelTotal) -> usage_pb2.ModelUsage:
    """One model's sums."""
    return usage_pb2.ModelUsage(
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        total_tokens=total.input_tokens + total.output_tokens,
        total_cost=usage_pb2.Money(pico_usd=total.total_pico),
        request_count=total.requests,
        unpriced_count=total.unpriced,
    )


def provider_key(stored: SealedKey) -> key_service_pb2.ProviderKey:
    """A stored key without the key."""
    return key_service_pb2.ProviderKey(
        provider=stored.provider,
        masked=stored.masked,
        created_at=timestamp(stored.created_ms),
        last_used_at=timestamp(stored.last_used_ms),
    )


def audit_event(stored: AuditEvent) -> audit_service_pb2.AuditEvent:
    """A row of the audit log."""
    return audit_service_pb2.AuditEvent(
        event_id=stored.event_id,
        created_at=timestamp(stored.created_ms),
        principal=stored.principal,
        action=stored.action,
        subject=stored.subject,
        outcome=stored.outcome,
    )
