"""RunTurn: generates the answer of a turn, once, as a task of the application.

send_message and recover_turns start it; cancel_turn, the pulse and the drain stop it. It drives a provider, which
writes into the turn's log; it retries only what surely did not reach the provider, commits the end, and only then
announces it.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from datetime import date
from functools import partial
from typing import Any, TypeVar

from agentspace.v1 import error_pb2, turn_pb2, usage_pb2
from gateway.domain import turn_event
from gateway.domain.context import ASSISTANT, PromptMessage, sendable
from gateway.domain.error import MAY_HAVE_EXECUTED, GatewayError
from gateway.domain.message import Message
from gateway.domain.price import charge
from gateway.domain.secret import Secret
from gateway.domain.turn import (
    CANCELLED,
    COMPLETED,
    FAILED,
    INTERRUPTED,
    REFUSED,
    RUNNING,
    Turn,
)
from gateway.domain.usage import TokenCounts, UsageRecord
from gateway.usecases.answer import Answer
from gateway.usecases.checkpoint import Checkpoints
from gateway.usecases.live_sessions import ActiveTurn, LiveSession, LiveSessions, Stopped
from gateway.usecases.manage_keys import KeyUse
from gateway.usecases.ports import Catalog, Clock, Estimator, Ids, Model, ModelRequest, Provider, Store, Transaction

ATTEMPTS = 3
RETRY_DELAYS = (0.5, 1.0)
LONGEST_RETRY_AFTER_MS = 20_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_DAY_MS = 24 * 60 * 60 * 1000
_RETRIED = frozenset(
    {
        error_pb2.ERROR_REASON_UPSTREAM_OVERLOADED,
        error_pb2.ERROR_REASON_UPSTREAM_RATE_LIMITED,
        error_pb2.ERROR_REASON_UPSTREAM_UNREACHABLE,
    }
)

_logger = logging.getLogger(__name__)

T = TypeVar("T")

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Starts a task the application owns and waits for when it drains."""


class RunTurn:
    """Runs turns. One instance serves all of them."""

    def __init__(
        self,
        *,
        store: Store,
        live: LiveSessions,
        catalog: Catalog,
        providers: dict[str, Provider],
        keys: KeyUse,
        estimator: Estimator,
        clock: Clock,
        ids: Ids,
        checkpoints: Checkpoints,
        spawn: Spawn,
        observe: Callable[[Turn], None],
        max_tokens: int,
    ) -> None:
        self._store = store
        self._live = live
        self._catalog = catalog
        self._providers = providers
        self._keys = keys
        self._estimator = estimator
        self._clock = clock
        self._ids = ids
        self._checkpoints = checkpoints
        self._spawn = spawn
        self._observe = observe
        self._max_tokens = max_tokens
        self.draining = False

    def start(
        self, live: LiveSession, active: ActiveTurn, prompt: list[PromptMessage], system: str, key: Secret | None
    ) -> None:
        """Announce that the turn, stored as running, has left the queue, and generate its answer."""
        live.running = active
        active.phase = turn_pb2.TURN_PHASE_DISPATCHING
        active.began_at = self._clock.monotonic()
        live.log.append_started(turn_event.started(active.turn))
        # The provider is asked first: what watchers are told has time until it answers.
        active.task = self._spawn(self._run(live, active, prompt, system, key))
        live.notify()

    async def start_next(self, live: LiveSession) -> None:
        """Take the next turn from the session's queue, if the session is free. The caller holds `live.lock`."""
        while live.queued and live.running is None and not self.draining:
            active = live.queued[0]
            positions = live.log.positions(active.turn.turn_id)
            turn = active.turn._replace(state=RUNNING, started_ms=self._clock.now_ms(), positions=positions)
            try:
                prompt, system, key = await self._commit(partial(self.take_over, turn=turn))
            except GatewayError as error:
                try:
                    await self.finish(live, active, FAILED, error=error)
                except Exception:
                    _logger.exception("it could not be stored that turn %s failed", active.turn.turn_id)
                    self._abandon(live)
                continue
            live.queued.pop(0)
            active.turn = turn
            self.start(live, active, prompt, system, key)

    def take_over(self, tx: Transaction, turn: Turn) -> tuple[list[PromptMessage], str, Secret | None]:
        """In a transaction: store the turn as running and collect what its request needs."""
        tx.turns.update(turn)
        session = tx.sessions.get(turn.session_id)
        history = tx.messages.history(turn.session_id)
        question = next(m for m in history if m.message_id == turn.message_id)
        key = self.key_for(tx, self._catalog.find(turn.model), turn.principal)
        return sendable(history, question), session.system_prompt if session else "", key

    def key_for(self, tx: Transaction, model: Model, principal: str) -> Secret | None:
        """The key a turn of `principal` uses for the model, audited in the same transaction; None where none is
        needed."""
        return self._keys.use(tx, model.provider, principal) if self._providers[model.provider].needs_key else None

    def require_key(self, tx: Transaction, model: Model) -> None:
        """Raises what `key_for` would, and uses nothing."""
        if self._providers[model.provider].needs_key:
            self._keys.require(tx, model.provider)

    async def _run(
        self, live: LiveSession, active: ActiveTurn, prompt: list[PromptMessage], system: str, key: Secret | None
    ) -> None:
        state, stop_reason, error = FAILED, "", None
        answer = Answer(live, active, self._clock, self._checkpoints)
        model = self._catalog.find(active.turn.model)
        provider = self._providers[model.provider]
        request = ModelRequest(
            model.upstream_name, system, tuple(prompt), min(model.max_output_tokens, self._max_tokens), key
        )
        records: list[UsageRecord] = []

        async def record(outcome: str, *, final: bool) -> None:
            records.append(await self._record(active, model, request, len(records) + 1, outcome, final=final))

        in_flight = counted = executed = False
        try:
            for attempt in range(ATTEMPTS):
                if active.stop is not None:
                    raise asyncio.CancelledError
                active.phase = turn_pb2.TURN_PHASE_DISPATCHING
                active.dispatched_at = self._clock.monotonic()
                in_flight = True
                try:
                    ending = await provider.generate(request, answer)
                    break
                except GatewayError as failure:
                    delay = _retry_delay(failure, attempt, answer.touched)
                    if delay is None:
                        raise
                    refused = failure.execution != MAY_HAVE_EXECUTED
                    executed = executed or not refused
                    await record(_name(failure), final=refused)
                in_flight = False
                # Our own wait is not the provider's silence.
                active.dispatched_at = self._clock.monotonic() + delay
                await asyncio.sleep(delay)
            stop_reason, counted = ending.stop_reason, ending.counted
            state = REFUSED if stop_reason == "refusal" else COMPLETED
        except asyncio.CancelledError:
            if active.stop is None:
                raise
            _uncancel()
            state, error = active.stop.state, active.stop.error
        except GatewayError as failure:
            # With its traceback it would hold this frame, and so itself and the turn.
            error = failure.with_traceback(None)
        except Exception:  # a bug must end its turn, not leave the session busy
            _logger.exception("turn %s failed", active.turn.turn_id)
            error = _internal()
        active.ending = True
        async with live.lock:
            try:
                if in_flight:
                    outcome = _name(error) if error else "cancelled" if state == CANCELLED else "completed"
                    refused = error is not None and error.execution != MAY_HAVE_EXECUTED
                    await record(outcome, final=counted or refused)
                if error and executed:
                    # Whatever became of the last attempt: who repeats the turn may pay twice.
                    error.execution = MAY_HAVE_EXECUTED
                await self.finish(live, active, state, stop_reason=stop_reason, error=error, records=records)
            except Exception:  # nor may a bug here leave it busy
                _logger.exception("the end of turn %s could not be stored as it was", active.turn.turn_id)
                try:
                    await self.finish(live, active, FAILED, error=_internal())
                except Exception:
                    _logger.exception("nor could it be stored that turn %s failed", active.turn.turn_id)
                    self._abandon(live)
            await self.start_next(live)

    async def _record(
        self, active: ActiveTurn, model: Model, request: ModelRequest, attempt: int, outcome: str, *, final: bool
    ) -> UsageRecord:
        """`final`: what the provider told is all there is, or it did not work on the request."""
        counts, status = active.counts or TokenCounts(), usage_pb2.USAGE_STATUS_FINAL
        if not final:
            text = "".join(active.log.chunks)
            counts = counts._replace(output=max(counts.output, await self._estimate(text)))
            status = usage_pb2.USAGE_STATUS_PARTIAL
            if not counts.input:
                status = usage_pb2.USAGE_STATUS_ESTIMATED
                sent = "".join([request.system, *(message.text for message in request.messages)])
                counts = counts._replace(uncached_input=await self._estimate(sent))
        now = self._clock.now_ms()
        day = date.fromordinal(_EPOCH_DAY + now // _DAY_MS).isoformat()
        return UsageRecord(
            session_id=active.turn.session_id,
            turn_id=active.turn.turn_id,
            attempt=attempt,
            model=active.turn.model,
            provider=model.provider,
            counts=counts,
            charge=charge(counts, model.prices, day, self._catalog.price_version),
            status=status,
            outcome=outcome,
            created_ms=now,
        )

    async def _estimate(self, text: str) -> int:
        return (await asyncio.to_thread(self._estimator.estimate, text))[0] if text else 0

    async def finish(
        self,
        live: LiveSession,
        active: ActiveTurn,
        state: turn_pb2.TurnState.ValueType,
        *,
        stop_reason: str = "",
        error: GatewayError | None = None,
        records: list[UsageRecord] | None = None,
        patient: bool = True,
    ) -> None:
        """Commit the turn's end, then announce it. The caller holds `live.lock`.

        A turn that still waits behind a running one, or without `patient`, raises STORAGE_UNAVAILABLE when the database
        refuses; then the turn is as it was.
        """
        now = self._clock.now_ms()
        log = active.log
        turn = active.turn
        usage = turn.usage
        for record in records or ():
            usage = usage.plus(record)
        answer = None
        if log.chunks:
            content = log.content(refused=state == REFUSED)
            answer = Message(self._ids.message(), turn.session_id, turn.turn_id, ASSISTANT, content, turn.model, now)
        # Deltas of another turn do not wait for this commit, so beside them the end gets its number only afterwards.
        beside = live.running is not None and live.running is not active
        seq = 0 if beside else live.log.last_seq + 1
        turn = turn._replace(
            state=state,
            ended_ms=now,
            answer_message_id=answer.message_id if answer else "",
            stop_reason=stop_reason,
            usage=usage,
            error=turn_event.turn_error(error) if error else None,
            positions=live.log.positions(turn.turn_id, ended=seq),
        )
        queued = [(a.turn.turn_id, live.log.positions(a.turn.turn_id)) for a in live.queued if a is not active]
        numbered = [*queued, *live.unstored]
        position = live.log.epoch, seq or live.log.last_seq
        lengths = log.chunk_lengths() if answer else ()
        saved = active.saved_chunks > 0 or active.saved_blocks > 0

        def work(tx: Transaction) -> None:
            tx.turns.finish(turn, lengths, checkpoints=saved)
            if answer is not None:
                tx.messages.insert(answer)
                tx.sessions.touch(turn.session_id, now, position)
            else:
                tx.sessions.set_position(turn.session_id, *position)
            for record in records or ():
                tx.usage.insert(record)
            for turn_id, positions in numbered:
                tx.turns.set_positions(turn_id, positions)

        if beside:
            await self._checkpoints.save_with(live, work)
        elif patient:
            await self._commit(work)
        else:
            await self._store.write(work)
        live.unstored.clear()
        seq = live.log.append_ended(turn_event.ended(turn))
        if beside:
            turn = turn._replace(positions=turn.positions._replace(ended=seq))
            live.unstored.append((turn.turn_id, turn.positions))
        active.turn = turn
        if live.running is active:
            live.running = None
        else:
            live.queued.remove(active)
        active.ended.set()
        live.log.drop_before(min([active.message_seq, *(other.message_seq for other in live.active())]))
        live.notify()
        self._live.remove_turn(live, active)
        self._observe(turn)

    def _abandon(self, live: LiveSession) -> None:
        """The end of a turn cannot be stored. The session's turns end in memory, and stay there: so the session does
        too, closed to everybody, for numbers that were announced must not be given again. The next start finds the
        turns unfinished."""
        live.broken = True
        error = turn_event.turn_error(_internal())
        for active in live.active():
            active.turn = active.turn._replace(state=FAILED, ended_ms=self._clock.now_ms(), error=error)
            live.log.append_ended(turn_event.ended(active.turn))
            active.ended.set()
            self._observe(active.turn)
        live.running = None
        live.queued.clear()
        live.notify()

    async def _commit(self, work: Callable[[Transaction], T]) -> T:
        """What a session's order depends on must be stored: while the database refuses, try again, for as long as it
        takes. Others who want the session are told so, see live_sessions.held."""
        delay = 0.1
        while True:
            try:
                return await self._store.write(work)
            except GatewayError as error:
                if error.reason != error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE:
                    raise
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)

    def stop(self, active: ActiveTurn, reason: Stopped) -> None:
        """Tell a running turn to end. Only the first reason counts; a turn that is already ending ends as it would
        have."""
        if active.stop is None and active.task is not None and not active.ending:
            active.stop = reason
            # A task that is cancelled before its first step would never run the code that ends the turn.
            if active.dispatched_at:
                active.task.cancel()


def interrupted(turn_id: str) -> Stopped:
    """The gateway goes down."""
    return Stopped(
        INTERRUPTED,
        GatewayError(
            error_pb2.ERROR_REASON_TURN_INTERRUPTED,
            "the gateway stopped before the answer was complete; the text so far is kept",
            execution=MAY_HAVE_EXECUTED,
            metadata={"turnId": turn_id},
        ),
    )


def _internal() -> GatewayError:
    return GatewayError(
        error_pb2.ERROR_REASON_INTERNAL, "the turn failed inside the gateway", execution=MAY_HAVE_EXECUTED
    )


def _name(error: GatewayError) -> str:
    return error_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


def _retry_delay(error: GatewayError, attempt: int, touched: bool) -> float | None:
    """Seconds to wait before the next attempt; None when there must be none: the answer had begun, or the error is
    final. A rate limit without advice is a spent allowance, which another attempt does not bring back."""
    if touched or error.reason not in _RETRIED or attempt + 1 == ATTEMPTS:
        return None
    if error.reason == error_pb2.ERROR_REASON_UPSTREAM_RATE_LIMITED and not error.retry_after_ms:
        return None
    if error.retry_after_ms > LONGEST_RETRY_AFTER_MS:
        return None
    return max(error.retry_after_ms / 1000, RETRY_DELAYS[attempt] * random.uniform(0.8, 1.2))


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
