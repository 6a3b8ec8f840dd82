"""A turn's states as a table, and the turn as it is stored. Everything that changes a turn's state asks this table."""

from typing import NamedTuple

from agentspace.v1 import turn_pb2
from agentspace.v1.error_pb2 import ErrorReason, Execution
from agentspace.v1.turn_pb2 import TurnState
from gateway.domain.error import MAY_HAVE_EXECUTED
from gateway.domain.usage import TurnUsage

QUEUED = turn_pb2.TURN_STATE_QUEUED
RUNNING = turn_pb2.TURN_STATE_RUNNING
COMPLETED = turn_pb2.TURN_STATE_COMPLETED
CANCELLED = turn_pb2.TURN_STATE_CANCELLED
FAILED = turn_pb2.TURN_STATE_FAILED
INTERRUPTED = turn_pb2.TURN_STATE_INTERRUPTED
REFUSED = turn_pb2.TURN_STATE_REFUSED
BUDGET_STOPPED = turn_pb2.TURN_STATE_BUDGET_STOPPED

QUEUE_DEPTH = 20
"""How many turns of a session may wait."""

NEXT: dict[TurnState.ValueType, frozenset[TurnState.ValueType]] = {
    QUEUED: frozenset({RUNNING, CANCELLED, FAILED}),
    RUNNING: frozenset({COMPLETED, CANCELLED, FAILED, INTERRUPTED, REFUSED, BUDGET_STOPPED}),
    COMPLETED: frozenset(),
    CANCELLED: frozenset(),
    FAILED: frozenset(),
    INTERRUPTED: frozenset(),
    REFUSED: frozenset(),
    BUDGET_STOPPED: frozenset(),
}
"""Which states may follow which. A state nothing follows is terminal."""

IN_ORDER = frozenset({COMPLETED, CANCELLED, REFUSED})
"""Terminal states announced as `ended`; the other terminal ones are announced as `failed`."""


def is_terminal(state: TurnState.ValueType) -> bool:
    """Whether the turn is over."""
    return not NEXT[state]


class TurnError(NamedTuple):
    """Why a turn has no complete answer: the stored form of a GatewayError."""

    reason: ErrorReason.ValueType
    message: str
    retryable: bool
    retry_after_ms: int
    execution: Execution.ValueType
    metadata: tuple[tuple[str, str], ...] = ()


class TurnPositions(NamedTuple):
    """Which sequence numbers a turn's events have. 0: no such event. `deltas` holds (first, count) runs, in order;
    there is more than one run only where another turn of the session was accepted or cancelled in between."""

    message: int = 0
    started: int = 0
    deltas: tuple[tuple[int, int], ...] = ()
    ended: int = 0

    @property
    def last(self) -> int:
        """The last of them; 0 when there are none."""
        last_delta = self.deltas[-1][0] + self.deltas[-1][1] - 1 if self.deltas else 0
        return max(self.message, self.started, last_delta, self.ended)


class Turn(NamedTuple):
    """One user message and the answer to it. Times are Unix milliseconds, 0 where not yet."""

    turn_id: str
    session_id: str
    message_id: str
    state: TurnState.ValueType
    model: str
    created_ms: int
    principal: str = ""
    idempotency_key: str = ""
    request_digest: str = ""
    started_ms: int = 0
    ended_ms: int = 0
    answer_message_id: str = ""
    stop_reason: str = ""
    usage: TurnUsage = TurnUsage()
    error: TurnError | None = None
    positions: TurnPositions = TurnPositions()
    cancel_when_unwatched: bool = False

    @property
    def may_have_been_billed(self) -> bool:
        """Tokens were used, or it is not known that none were."""
        if self.error is not None and self.error.execution == MAY_HAVE_EXECUTED:
            return True
        return bool(self.usage.counts.total)
