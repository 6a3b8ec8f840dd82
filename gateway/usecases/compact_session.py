"""CompactSession: puts a summary in the place of a session's older messages. Called by rpc's session service.

The summary is stored as one user message without a turn; domain/context.py says how it is sent.
"""

from agentspace.v1 import error_pb2
from gateway.domain.context import TEXT, USER
from gateway.domain.error import GatewayError, invalid, message_not_found
from gateway.domain.ids import resolve_session
from gateway.domain.message import ContentBlock, Message
from gateway.domain.session import Session
from gateway.domain.session_log import SessionLog
from gateway.usecases.find_session import living_session
from gateway.usecases.live_sessions import LiveSessions, held
from gateway.usecases.ports import Clock, Ids, Store, Transaction

MAX_SUMMARY_BYTES = 1024 * 1024


class CompactSession:
    """Compacts sessions."""

    def __init__(self, *, store: Store, live: LiveSessions, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._live = live
        self._clock = clock
        self._ids = ids

    async def __call__(self, reference: str, summary: str, keep_from: str = "") -> Session:
        """Replace what is before the message `keep_from`, or everything when it is empty, by `summary`.

        What is replaced stays readable as the generation before. The epoch rises, so that watchers begin anew.

        Raises SESSION_NOT_FOUND, MESSAGE_NOT_FOUND, STREAM_IN_PROGRESS while a turn runs or waits, or INVALID_MESSAGE,
        also when there is nothing to replace or `keep_from` would part an answer from its question.
        """
        if not summary.strip():
            raise invalid("summary", "text that is not blank")
        if len(summary.encode()) > MAX_SUMMARY_BYTES:
            raise invalid("summary", f"at most {MAX_SUMMARY_BYTES} bytes of UTF-8")
        live = await self._live.acquire(resolve_session(reference))
        try:
            async with held(live):
                session = await self._store.write(lambda tx: self._replace(tx, live.session_id, summary, keep_from))
                live.log, live.log_is_whole = SessionLog(session.epoch, session.last_seq), False
                live.notify()
                return session
        finally:
            self._live.release(live)

    def _replace(self, tx: Transaction, session_id: str, summary: str, keep_from: str) -> Session:
        session = living_session(tx, session_id)
        if unfinished := tx.turns.unfinished(session_id):
            raise GatewayError(
                error_pb2.ERROR_REASON_STREAM_IN_PROGRESS,
                "the session has a turn that has not ended; wait for its end or cancel it",
                metadata={"sessionId": session_id, "turnId": unfinished[0].turn_id},
            )
        history = tx.messages.history(session_id)
        kept = _kept(history, keep_from)
        if len(kept) == len(history):
            raise invalid("keepFromMessageId" if keep_from else "sessionId", "older messages to replace")
        generation, now = session.generation + 1, self._clock.now_ms()
        end = kept[0].position if kept else history[-1].position + 1
        tx.messages.replace_before(session_id, end, generation)
        tx.sessions.set_generation(session_id, generation, len(kept) + 1, now)
        tx.sessions.set_position(session_id, session.epoch + 1, session.last_seq)
        # The summary takes the place of the last message it replaces.
        block = ContentBlock(TEXT, summary)
        tx.messages.insert(Message(self._ids.message(), session_id, "", USER, (block,), "", now, position=end - 1))
        return living_session(tx, session_id)


def _kept(history: list[Message], keep_from: str) -> list[Message]:
    if not keep_from:
        return []
    for index, message in enumerate(history):
        if message.message_id == keep_from:
            questions = {kept.turn_id for kept in history[index:] if kept.role == USER}
            if any(kept.role != USER and kept.turn_id not in questions for kept in history[index:]):
                raise invalid("keepFromMessageId", "a message from which on no answer loses its question")
            return history[index:]
    raise message_not_found(keep_from)
