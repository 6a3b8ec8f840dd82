"""Builds the contract's messages of a turn's events from what is stored, so that live and replayed events are the same.

Positions are left at 0: session_log fills them in. Called by send_message, run_turn, recover_turns and watch_session.
"""

from agentspace.v1 import error_pb2, message_pb2, turn_pb2, usage_pb2
from agentspace.v1.annotations_pb2 import reason as reason_option
from agentspace.v1.error_pb2 import ErrorReason
from gateway.domain.error import GatewayError
from gateway.domain.message import ContentBlock, Message
from gateway.domain.turn import IN_ORDER, Turn, TurnError
from gateway.domain.usage import Charge, TokenCounts


def is_retryable(reason: ErrorReason.ValueType) -> bool:
    """Whether the same request may succeed later, as the contract says of the reason."""
    value = ErrorReason.DESCRIPTOR.values_by_number[reason]
    return value.GetOptions().Extensions[reason_option].retryable


def turn_error(error: GatewayError) -> TurnError:
    """The stored form of an error."""
    return TurnError(
        error.reason,
        error.message,
        is_retryable(error.reason),
        error.retry_after_ms,
        error.execution,
        tuple(error.metadata.items()),
    )


def error_message(error: GatewayError) -> error_pb2.Error:
    """An error that answers a request."""
    return error_pb2.Error(
        code=error.reason,
        message=error.message,
        retryable=is_retryable(error.reason),
        retry_after_ms=error.retry_after_ms,
        execution=error.execution,
        metadata=error.metadata,
    )


def stored_error(error: TurnError, session_id: str = "", turn_id: str = "") -> error_pb2.Error:
    """A turn's stored error."""
    return error_pb2.Error(
        code=error.reason,
        message=error.message,
        retryable=error.retryable,
        retry_after_ms=error.retry_after_ms,
        execution=error.execution,
        metadata=dict(error.metadata),
        session_id=session_id,
        turn_id=turn_id,
    )


def tokens(counts: TokenCounts) -> usage_pb2.TokenUsage:
    """Token classes and their sums."""
    return usage_pb2.TokenUsage(
        input_tokens=counts.input,
        output_tokens=counts.output,
        total_tokens=counts.total,
        uncached_input_tokens=counts.uncached_input,
        cache_write_5m_tokens=counts.cache_write_5m,
        cache_write_1h_tokens=counts.cache_write_1h,
        cache_read_tokens=counts.cache_read,
        thinking_tokens=counts.thinking,
        server_tool_requests=counts.server_tool_requests,
    )


def cost(charge: Charge) -> usage_pb2.Cost:
    """Amounts; without a price there are none."""
    if not charge.priced and not charge.total_pico:
        return usage_pb2.Cost()
    # Set in place: a message that is given to another is copied.
    amounts = usage_pb2.Cost(priced=charge.priced, price_version=charge.price_version)
    amounts.input_cost.pico_usd = charge.input_pico
    amounts.output_cost.pico_usd = charge.output_pico
    amounts.total_cost.pico_usd = charge.total_pico
    return amounts


def block(content: ContentBlock) -> message_pb2.ContentBlock:
    """A content block; an opaque block's text is its JSON."""
    opaque = content.kind == message_pb2.BLOCK_KIND_OPAQUE
    return message_pb2.ContentBlock(
        kind=content.kind,
        text="" if opaque else content.text,
        raw_json=content.text if opaque else "",
        tool_use_id=content.tool_use_id,
        tool_name=content.tool_name,
        signature=content.signature,
        complete=content.complete,
    )


def message(stored: Message) -> message_pb2.Message:
    """A message."""
    result = message_pb2.Message(
        message_id=stored.message_id,
        session_id=stored.session_id,
        turn_id=stored.turn_id,
        role=stored.role,
        blocks=[block(b) for b in stored.blocks],
        model=stored.model,
        content=stored.text,
    )
    result.created_at.FromMilliseconds(stored.created_ms)
    return result


def message_committed(question: Message) -> turn_pb2.MessageCommitted:
    """The event of a user message."""
    return turn_pb2.MessageCommitted(message=message(question), turn_id=question.turn_id)


def started(turn: Turn) -> turn_pb2.TurnStarted:
    """The event of a turn leaving the queue."""
    return turn_pb2.TurnStarted(session_id=turn.session_id, model=turn.model, turn_id=turn.turn_id)


def ended(turn: Turn) -> turn_pb2.TurnEnded | error_pb2.Error:
    """The terminal event of a turn in a terminal state."""
    if turn.state not in IN_ORDER and turn.error is not None:
        return stored_error(turn.error, turn.session_id, turn.turn_id)
    return turn_pb2.TurnEnded(
        usage=tokens(turn.usage.counts),
        cost=cost(turn.usage.charge),
        turn_id=turn.turn_id,
        state=turn.state,
        stop_reason=turn.stop_reason,
        message_id=turn.answer_message_id,
        usage_status=turn.usage.status if turn.usage.attempts else usage_pb2.USAGE_STATUS_UNSPECIFIED,
    )
