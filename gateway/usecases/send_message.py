"""SendMessage: commits a user message and its turn, then lets the turn run. Called by rpc's chat service.

Everything that can be refused is refused before the commit, and then nothing is stored. After the commit the turn
belongs to the application; the feed that comes back only reads.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agentspace.v1 import chat_service_pb2, error_pb2, turn_pb2
from gateway.domain import ids as names
from gateway.domain.access import Principal
from gateway.domain.context import TEXT, USER, PromptMessage
from gateway.domain.error import GatewayError, invalid
from gateway.domain.message import ContentBlock, Message
from gateway.domain.secret import Secret
from gateway.domain.session import Session
from gateway.domain.turn import QUEUE_DEPTH, QUEUED, RUNNING, Turn
from gateway.domain.turn_log import TurnLog
from gateway.usecases.cancel_turn import CancelTurn
from gateway.usecases.find_session import living_session
from gateway.usecases.live_sessions import LOCK_SECONDS, ActiveTurn, LiveSession, LiveSessions, Wake, held, stuck
from gateway.usecases.ports import Catalog, Clock, Ids, Model, Store, Transaction
from gateway.usecases.run_turn import RunTurn
from gateway.usecases.watch_session import Feed, WatchSession

MAX_CONTENT_BYTES = 1024 * 1024
MAX_KEY_CHARACTERS = 200
QUEUE = chat_service_pb2.ON_BUSY_QUEUE
INTERRUPT = chat_service_pb2.ON_BUSY_INTERRUPT


@dataclass(frozen=True, slots=True)
class Send:
    """A send as asked. `session` is an id or a key, or empty for a new session."""

    session: str
    content: str
    model: str
    agent_id: str
    idempotency_key: str
    on_busy: chat_service_pb2.OnBusy.ValueType
    cancel_when_unwatched: bool

    def digest(self) -> str:
        """Tells whether two sends are the same message."""
        # An id and a key name the same session.
        session = self.session and names.resolve_session(self.session)
        parts = (session, self.content, self.model, self.agent_id)
        return hashlib.sha256(b"".join(b"%d:" % len(p.encode()) + p.encode() for p in parts)).hexdigest()


@dataclass(slots=True)
class _Accepted:
    """What the commit gave."""

    turn: Turn
    question: Message
    prompt: list[PromptMessage]
    system: str
    key: Secret | None


class SendMessage:
    """Accepts messages."""

    def __init__(
        self,
        *,
        store: Store,
        live: LiveSessions,
        run: RunTurn,
        cancel: CancelTurn,
        watch: WatchSession,
        catalog: Catalog,
        clock: Clock,
        ids: Ids,
        default_model: str,
        key_lifetime_ms: int,
    ) -> None:
        self._store = store
        self._live = live
        self._run = run
        self._cancel = cancel
        self._watch = watch
        self._catalog = catalog
        self._clock = clock
        self._ids = ids
        self._default_model = default_model
        self._key_lifetime_ms = key_lifetime_ms
        self._busy: dict[tuple[str, str], asyncio.Event] = {}
        self._lines: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()

    async def __call__(self, send: Send, caller: Principal, wake: Wake) -> Feed:
        """Commit the message and follow its turn. Raises as ChatService.SendMessage says."""
        _validate(send)
        if send.model:
            self._catalog.find(send.model)
        if not send.session:
            return await self._keyed(send, caller, wake)
        async with self._in_line(names.resolve_session(send.session)):
            return await self._keyed(send, caller, wake)

    async def _keyed(self, send: Send, caller: Principal, wake: Wake) -> Feed:
        if not send.idempotency_key:
            return await self._first(send, caller, wake)
        async with self._alone((caller.name, send.idempotency_key)):
            # A send to a new session asks in the transaction in which it is stored.
            if send.session:
                earlier = await self._store.read(lambda tx: self._earlier(tx, send, caller))
                if earlier is not None:
                    return await self._attach(earlier, wake)
            return await self._first(send, caller, wake)

    async def _first(self, send: Send, caller: Principal, wake: Wake) -> Feed:
        if self._run.draining:
            raise shutting_down()
        if not send.session:
            return await self._in_new_session(send, caller, wake)
        live = await self._live.acquire(names.resolve_session(send.session))
        try:
            while True:
                async with held(live):
                    if live.running is None or send.on_busy != INTERRUPT:
                        return await self._in_session(send, caller, wake, live)
                await self._store.read(lambda tx: self._require(tx, send, live.session_id))
                await self._cancel.session(live)
        finally:
            self._live.release(live)

    def _require(self, tx: Transaction, send: Send, session_id: str) -> None:
        """Raises what would refuse the message once it has interrupted the others."""
        if self._run.draining:
            raise shutting_down()
        session = living_session(tx, session_id)
        self._run.require_key(tx, self._catalog.find(send.model or session.model))

    async def _in_new_session(self, send: Send, caller: Principal, wake: Wake) -> Feed:
        now = self._clock.now_ms()
        model = self._catalog.find(send.model or self._default_model)
        session = Session(self._ids.session(), names.agent_id(send.agent_id), model.name, now, now, message_count=1)
        turn, question = self._turn(send, caller, session.session_id, model, RUNNING, now)

        def work(tx: Transaction) -> _Accepted | Turn:
            if send.idempotency_key and (earlier := self._earlier(tx, send, caller)) is not None:
                return earlier
            key = self._run.key_for(tx, model, caller.name)
            tx.sessions.insert(session)
            tx.turns.insert(turn)
            tx.messages.insert(question)
            return _Accepted(turn, question, [PromptMessage("user", send.content)], "", key)

        live = self._live.create(session)
        try:
            # Whoever finds the session between the commit and its announcement waits. Nobody has the lock yet.
            async with live.lock:
                accepted = await self._store.write(work)
                if isinstance(accepted, Turn):
                    return await self._attach(accepted, wake)
                return self._begin(live, accepted, wake, created=session)
        finally:
            self._live.release(live)

    async def _in_session(self, send: Send, caller: Principal, wake: Wake, live: LiveSession) -> Feed:
        if self._run.draining:
            raise shutting_down()
        busy = live.running
        if busy is not None and send.on_busy != QUEUE:
            raise GatewayError(
                error_pb2.ERROR_REASON_STREAM_IN_PROGRESS,
                "the session has a running turn; wait for its end, cancel it, or send with onBusy",
                metadata={"sessionId": live.session_id, "turnId": busy.turn.turn_id},
            )
        if len(live.queued) >= QUEUE_DEPTH:
            raise GatewayError(
                error_pb2.ERROR_REASON_QUEUE_FULL,
                f"{QUEUE_DEPTH} messages are waiting in the session",
                metadata={"limit": str(QUEUE_DEPTH)},
            )
        state = RUNNING if busy is None else QUEUED

        def work(tx: Transaction) -> _Accepted:
            session = living_session(tx, live.session_id)
            now = self._clock.now_ms()
            model = self._catalog.find(send.model or session.model)
            turn, question = self._turn(send, caller, session.session_id, model, state, now)
            tx.turns.insert(turn)
            question = tx.messages.insert(question)
            tx.sessions.touch(session.session_id, now)
            if state == QUEUED:
                return _Accepted(turn, question, [], "", None)
            prompt, system, key = self._run.take_over(tx, turn)
            return _Accepted(turn, question, prompt, system, key)

        return self._begin(live, await self._store.write(work), wake)

    def _turn(
        self,
        send: Send,
        caller: Principal,
        session_id: str,
        model: Model,
        state: turn_pb2.TurnState.ValueType,
        now: int,
    ) -> tuple[Turn, Message]:
        turn = Turn(
            turn_id=self._ids.turn(),
            session_id=session_id,
            message_id=self._ids.message(),
            state=state,
            model=model.name,
            created_ms=now,
            principal=caller.name,
            idempotency_key=send.idempotency_key,
            request_digest=send.digest() if send.idempotency_key else "",
            started_ms=now if state == RUNNING else 0,
            cancel_when_unwatched=send.cancel_when_unwatched,
        )
        block = ContentBlock(TEXT, send.content)
        return turn, Message(turn.message_id, session_id, turn.turn_id, USER, (block,), "", now)

    def _begin(self, live: LiveSession, accepted: _Accepted, wake: Wake, created: Session | None = None) -> Feed:
        """The commit is done: number and announce the message, start the turn if it runs now."""
        turn = accepted.turn
        seq = live.log.append_message(accepted.question)
        active = ActiveTurn(turn, TurnLog(turn.turn_id, turn.message_id, turn.model), seq)
        position = len(live.active())
        self._live.add_turn(live, active)
        feed = self._watch.turn(live, turn.turn_id, seq, wake)
        if created is not None:
            feed.put(turn_pb2.SessionCreated(session_id=created.session_id, session_key=created.key))
        feed.put(_ack(turn, live.log.epoch, seq, queue_position=position if turn.state == QUEUED else 0))
        if turn.state == QUEUED:
            live.queued.append(active)
            live.notify()
        else:
            self._run.start(live, active, accepted.prompt, accepted.system, accepted.key)
        return feed

    def _earlier(self, tx: Transaction, send: Send, caller: Principal) -> Turn | None:
        """The turn the key was used for before. Raises IDEMPOTENCY_CONFLICT when that was another message."""
        not_before = self._clock.now_ms() - self._key_lifetime_ms
        turn = tx.turns.find_by_key(caller.name, send.idempotency_key, not_before)
        if turn is not None and turn.request_digest != send.digest():
            raise GatewayError(
                error_pb2.ERROR_REASON_IDEMPOTENCY_CONFLICT,
                "the idempotency key was used for another message",
                metadata={"turnId": turn.turn_id},
            )
        return turn

    @asynccontextmanager
    async def _in_line(self, session_id: str) -> AsyncIterator[None]:
        """The sends to a session one after the other, as they came: they read before they take its lock, and one read
        may overtake another."""
        line = self._lines.setdefault(session_id, asyncio.Lock())
        self._waiting[session_id] += 1
        try:
            try:
                async with asyncio.timeout(LOCK_SECONDS):
                    await line.acquire()
            except TimeoutError:
                raise stuck() from None
            try:
                yield
            finally:
                line.release()
        finally:
            self._waiting[session_id] -= 1
            if not self._waiting[session_id]:
                del self._waiting[session_id], self._lines[session_id]

    @asynccontextmanager
    async def _alone(self, key: tuple[str, str]) -> AsyncIterator[None]:
        """One send at a time with this key: the next one finds the turn of the one before it stored and live."""
        while (busy := self._busy.get(key)) is not None:
            await busy.wait()
        self._busy[key] = done = asyncio.Event()
        try:
            yield
        finally:
            del self._busy[key]
            done.set()

    async def _attach(self, turn: Turn, wake: Wake) -> Feed:
        """Follow a turn that was accepted before: its acknowledgement again, then all of its events."""
        live = await self._live.acquire(turn.session_id)
        try:
            current = self._live.turns.get(turn.turn_id)
            if current is not None:
                turn, seq = current[1].turn, current[1].message_seq
                position = live.active().index(current[1]) if turn.state == QUEUED else 0
            else:
                stored = await self._store.read(lambda tx: tx.turns.get(turn.turn_id))
                turn = stored or turn
                seq, position = turn.positions.message, 0
            feed = self._watch.turn(live, turn.turn_id, seq, wake)
            feed.put(_ack(turn, live.log.epoch, seq, duplicate=True, queue_position=position))
            return feed
        finally:
            self._live.release(live)


def _ack(
    turn: Turn, epoch: int, seq: int, *, duplicate: bool = False, queue_position: int = 0
) -> turn_pb2.MessageAccepted:
    return turn_pb2.MessageAccepted(
        session_id=turn.session_id,
        turn_id=turn.turn_id,
        message_id=turn.message_id,
        epoch=epoch,
        seq=seq,
        duplicate=duplicate,
        state=turn.state,
        queue_position=queue_position,
    )


def shutting_down() -> GatewayError:
    """SHUTTING_DOWN with a hint."""
    return GatewayError(
        error_pb2.ERROR_REASON_SHUTTING_DOWN, "the gateway is going down; try again shortly", retry_after_ms=2000
    )


def _validate(send: Send) -> None:
    if not send.content.strip():
        raise invalid("content", "text that is not blank")
    if len(send.content.encode()) > MAX_CONTENT_BYTES:
        raise invalid("content", f"at most {MAX_CONTENT_BYTES} bytes of UTF-8")
    if len(send.idempotency_key) > MAX_KEY_CHARACTERS:
        raise invalid("idempotencyKey", f"at most {MAX_KEY_CHARACTERS} characters")
