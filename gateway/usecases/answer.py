"""Answer: where a provider's output goes. Implements AnswerSink: appends to the turn's log, numbers the events, wakes
watchers.

This is the hot path: one call of `delta` per network read of the provider.
"""

from agentspace.v1 import error_pb2, turn_pb2
from agentspace.v1.message_pb2 import BlockKind
from gateway.domain.error import MAY_HAVE_EXECUTED, GatewayError
from gateway.domain.session_log import MERGE_LIMIT
from gateway.domain.turn_log import TEXT, THINKING
from gateway.domain.usage import TokenCounts
from gateway.usecases.checkpoint import UNSAVED_CHARACTERS, Checkpoints
from gateway.usecases.live_sessions import ActiveTurn, LiveSession
from gateway.usecases.ports import Clock

ANSWER_CHARACTERS = 6 * 1024 * 1024
"""The longest answer, ten times what any model writes: it is in memory until it is stored."""


class Answer:
    """The sink of one turn; serves all its attempts, since a second attempt is made only while the log is empty."""

    __slots__ = ("_active", "_checkpoints", "_live", "_monotonic", "touched")

    def __init__(self, live: LiveSession, active: ActiveTurn, clock: Clock, checkpoints: Checkpoints) -> None:
        self._live = live
        self._active = active
        self._monotonic = clock.monotonic
        self._checkpoints = checkpoints
        self.touched = False
        """The provider has begun to answer: the attempt must not be repeated."""

    def progress(self) -> None:
        """Bytes of an answer came."""
        self._active.upstream_at = self._monotonic()
        if not self.touched:
            self.touched = True
            self._active.phase = turn_pb2.TURN_PHASE_WAITING_FIRST_TOKEN

    def open_block(self, kind: BlockKind.ValueType, tool_use_id: str = "", tool_name: str = "") -> None:
        """The next block begins."""
        self.progress()
        thinking = kind == THINKING
        self._active.phase = turn_pb2.TURN_PHASE_THINKING if thinking else turn_pb2.TURN_PHASE_STREAMING
        self._active.log.open_block(kind, tool_use_id, tool_name)

    def delta(self, text: str) -> None:
        """More of the newest block. Raises UPSTREAM_TRUNCATED when there has been too much."""
        active, live = self._active, self._live
        active.content_at = active.upstream_at = self._monotonic()
        self.touched = True
        log = active.log
        first = not log.chunks
        if not log.blocks:
            self.open_block(TEXT)
        if len(text) <= MERGE_LIMIT:
            log.append(text)
            live.log.append_deltas(log)
        else:
            self._append_large(text[: ANSWER_CHARACTERS - log.characters + 1])
        live.notify(soon=first)
        if log.characters - active.saved_characters > UNSAVED_CHARACTERS:
            self._checkpoints.hurry()
        if log.characters > ANSWER_CHARACTERS:
            raise GatewayError(
                error_pb2.ERROR_REASON_UPSTREAM_TRUNCATED,
                f"the answer has more than {ANSWER_CHARACTERS} characters; the rest was not read",
                execution=MAY_HAVE_EXECUTED,
            )

    def _append_large(self, text: str) -> None:
        """What the provider sent at once becomes events of the usual size: no client has to take a larger one."""
        log = self._active.log
        for start in range(0, len(text), MERGE_LIMIT):
            log.append(text[start : start + MERGE_LIMIT])
            self._live.log.append_deltas(log)

    def close_block(self, signature: str = "") -> None:
        """The newest block is complete."""
        self._active.log.close_block(signature)

    def usage(self, counts: TokenCounts) -> None:
        """What has been used so far."""
        self._active.counts = counts
