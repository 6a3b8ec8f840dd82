"""RecoverTurns: at start, brings every session that had an unfinished turn to a usable state. Called by app before the
doors open.

A turn that was running ends as interrupted with its text up to the last checkpoint; it is never generated again. Turns
that were waiting run, in their order, unless their session was deleted. Where events may have been announced and lost,
the session gets a new epoch.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from agentspace.v1 import error_pb2, usage_pb2
from gateway.domain import turn_event
from gateway.domain.context import ASSISTANT, sendable
from gateway.domain.error import GatewayError
from gateway.domain.message import ContentBlock, Message
from gateway.domain.price import charge
from gateway.domain.session import Session
from gateway.domain.session_log import SessionLog
from gateway.domain.turn import CANCELLED, INTERRUPTED, RUNNING, Turn
from gateway.domain.turn_log import TurnLog
from gateway.domain.usage import TurnUsage, UsageRecord
from gateway.usecases.live_sessions import ActiveTurn, LiveSessions
from gateway.usecases.ports import Catalog, Clock, Estimator, Ids, Model, Store, Transaction
from gateway.usecases.replay import entries_of
from gateway.usecases.run_turn import RunTurn, interrupted

_ALL = 2**31
AT_ONCE = 1000
"""How many sessions are repaired at a time; the storage takes so many writes and no end of them."""

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Recovered:
    session: Session
    log: SessionLog
    queued: list[Turn]
    ended: list[Turn]


class RecoverTurns:
    """Runs once."""

    def __init__(
        self,
        *,
        store: Store,
        live: LiveSessions,
        run: RunTurn,
        catalog: Catalog,
        estimator: Estimator,
        clock: Clock,
        ids: Ids,
        observe: Callable[[Turn], None],
    ) -> None:
        self._store = store
        self._live = live
        self._run = run
        self._catalog = catalog
        self._estimator = estimator
        self._clock = clock
        self._ids = ids
        self._observe = observe
        self._places = asyncio.Semaphore(AT_ONCE)

    async def __call__(self) -> int:
        """Returns how many turns were found unfinished."""
        unfinished = await self._store.read(lambda tx: tx.turns.unfinished())
        by_session: dict[str, list[Turn]] = defaultdict(list)
        for turn in unfinished:
            by_session[turn.session_id].append(turn)
        await asyncio.gather(*(self._alone(session_id, turns) for session_id, turns in by_session.items()))
        return len(unfinished)

    async def _alone(self, session_id: str, turns: list[Turn]) -> None:
        try:
            async with self._places:
                await self._session(session_id, turns)
        except Exception as error:  # a session that cannot be repaired must not keep all others away
            if isinstance(error, GatewayError) and error.reason == error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE:
                raise
            _logger.exception("session %s could not be repaired", session_id)
            self._live.bar(session_id)

    async def _session(self, session_id: str, turns: list[Turn]) -> None:
        recovered = await self._store.write(lambda tx: self._repair(tx, session_id, turns))
        if recovered is None:
            return
        for turn in recovered.ended:
            self._observe(turn)
        if not recovered.queued:
            return
        live = self._live.create(recovered.session)
        live.log = recovered.log
        try:
            for turn in recovered.queued:
                log = TurnLog(turn.turn_id, turn.message_id, turn.model)
                active = ActiveTurn(turn, log, turn.positions.message)
                self._live.add_turn(live, active)
                live.queued.append(active)
            async with live.lock:
                await self._run.start_next(live)
        finally:
            self._live.release(live)

    def _repair(self, tx: Transaction, session_id: str, turns: list[Turn]) -> _Recovered | None:
        session = tx.sessions.get(session_id)
        if session is None:
            return None
        lost = any(turn.state == RUNNING or not turn.positions.message for turn in turns)
        epoch = session.epoch + 1 if lost else session.epoch
        first = min((turn.positions.message for turn in turns if turn.positions.message), default=session.last_seq)
        ended = tx.turns.after(session_id, first, _ALL)
        last_seq = max([session.last_seq, *(turn.positions.last for turn in [*turns, *ended])])
        queued, over = [], []
        for turn in turns:
            if not turn.positions.message:
                last_seq += 1
                turn = turn._replace(positions=turn.positions._replace(message=last_seq))
            if turn.state == RUNNING:
                over.append(self._interrupt(tx, turn, last_seq))
                last_seq = over[-1].positions.ended
            elif session.deleted_ms:
                last_seq += 1
                positions = turn.positions._replace(ended=last_seq)
                over.append(turn._replace(state=CANCELLED, ended_ms=self._clock.now_ms(), positions=positions))
                tx.turns.update(over[-1])
            else:
                tx.turns.set_positions(turn.turn_id, turn.positions)
                queued.append(turn)
        for turn in ended:
            # Its end gets a number after the commit, and the gateway died in between.
            if not turn.positions.ended:
                last_seq += 1
                tx.turns.set_positions(turn.turn_id, turn.positions._replace(ended=last_seq))
        tx.sessions.set_position(session_id, epoch, last_seq)
        floor = min((turn.positions.message for turn in queued), default=last_seq + 1) - 1
        ended = tx.turns.after(session_id, floor, _ALL)
        entries = [entry for turn in [*ended, *queued] for entry in entries_of(tx, turn)]
        entries = sorted((e for e in entries if e.first_seq + e.count - 1 > floor), key=lambda entry: entry.first_seq)
        log = SessionLog.restore(epoch, entries, last_seq)
        return _Recovered(session._replace(epoch=epoch, last_seq=last_seq), log, queued, over)

    def _interrupt(self, tx: Transaction, turn: Turn, last_seq: int) -> Turn:
        positions = turn.positions
        if not positions.started:
            last_seq += 1
            positions = positions._replace(started=last_seq)
        last_seq += 1
        now = self._clock.now_ms()
        stored = tx.turns.answer(turn.turn_id)
        answer_id = ""
        if stored is not None and any(stored.chunk_lengths):
            answer_id = self._ids.message()
            tx.messages.insert(
                Message(answer_id, turn.session_id, turn.turn_id, ASSISTANT, stored.content, turn.model, now)
            )
            tx.sessions.touch(turn.session_id, now)
        error = interrupted(turn.turn_id).error
        assert error is not None
        record = self._record(tx, turn, stored.content if stored is not None else (), now)
        tx.usage.insert(record)
        turn = turn._replace(
            state=INTERRUPTED,
            ended_ms=now,
            answer_message_id=answer_id,
            usage=TurnUsage().plus(record),
            error=turn_event.turn_error(error),
            positions=positions._replace(ended=last_seq),
        )
        tx.turns.finish(turn, stored.chunk_lengths if answer_id and stored is not None else ())
        return turn

    def _record(self, tx: Transaction, turn: Turn, content: tuple[ContentBlock, ...], now: int) -> UsageRecord:
        """The attempt that was under way: what the provider told of it, or what it was sent, and what the text that is
        kept comes to. At the price of the day of the attempt."""
        seen = self._estimate("".join(block.text for block in content))
        counts = turn.usage.counts._replace(output=max(turn.usage.counts.output, seen))
        told = counts.input > 0
        if not told:
            counts = counts._replace(uncached_input=self._estimate(_sent(tx, turn)))
        model = self._model(turn.model)
        day = datetime.fromtimestamp((turn.started_ms or now) / 1000, UTC).date().isoformat()
        return UsageRecord(
            session_id=turn.session_id,
            turn_id=turn.turn_id,
            attempt=1,
            model=turn.model,
            provider=model.provider,
            counts=counts,
            charge=charge(counts, model.prices, day, self._catalog.price_version),
            status=usage_pb2.USAGE_STATUS_PARTIAL if told else usage_pb2.USAGE_STATUS_ESTIMATED,
            outcome="TURN_INTERRUPTED",
            created_ms=now,
        )

    def _estimate(self, text: str) -> int:
        return self._estimator.estimate(text)[0] if text else 0

    def _model(self, name: str) -> Model:
        """The model; one that is not served any more has no prices, and must not keep the gateway from starting."""
        try:
            return self._catalog.find(name)
        except GatewayError:
            return Model(name, name, "", 0, 0, ())


def _sent(tx: Transaction, turn: Turn) -> str:
    """All the text of the turn's request."""
    session = tx.sessions.get(turn.session_id)
    question = tx.messages.get(turn.session_id, turn.message_id)
    prompt = sendable(tx.messages.history(turn.session_id), question)
    return "".join([session.system_prompt if session else "", *(message.text for message in prompt)])
