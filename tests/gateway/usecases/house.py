"""All live use cases over one real database, put together as app does it, and a provider that answers when told to."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from agentspace.v1 import chat_service_pb2, error_pb2, turn_pb2
from gateway.domain.access import LOCAL, Principal
from gateway.domain.error import MAY_HAVE_EXECUTED, GatewayError
from gateway.domain.secret import Secret
from gateway.domain.turn import Turn
from gateway.ids import NanoIds
from gateway.providers.catalog import BuiltInCatalog
from gateway.usecases.cancel_turn import CancelTurn
from gateway.usecases.checkpoint import Checkpoints
from gateway.usecases.compact_session import CompactSession
from gateway.usecases.delete_session import DeleteSession
from gateway.usecases.live_sessions import LiveSessions
from gateway.usecases.manage_keys import KeyUse
from gateway.usecases.ports import AnswerSink, Ending, ModelRequest, Provider, Store
from gateway.usecases.pulse import Pulse, TimeLimits
from gateway.usecases.read_turns import ReadTurns
from gateway.usecases.recover_turns import RecoverTurns
from gateway.usecases.run_turn import RunTurn
from gateway.usecases.send_message import Send, SendMessage
from gateway.usecases.watch_session import Feed, WatchSession
from tests.gateway.usecases.rooms import MODEL, StillClock

SECONDS = 5.0
HOUR_MS = 3_600_000


@dataclass
class Call:
    """One upstream attempt. `sink` takes what the provider says; `end` and `fail` end it."""

    request: ModelRequest
    sink: AnswerSink
    outcome: "asyncio.Future[Ending]"
    closed: bool = False

    @property
    def question(self) -> str:
        return self.request.messages[-1].text

    def say(self, *deltas: str) -> None:
        for delta in deltas:
            self.sink.delta(delta)

    def end(self, *deltas: str, stop_reason: str = "end_turn") -> None:
        self.say(*deltas)
        self.outcome.set_result(Ending(stop_reason))

    def fail(self, reason: str = "UPSTREAM_TRUNCATED", retry_after_ms: int = 0, execution: Any = None) -> None:
        value = error_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")
        execution = MAY_HAVE_EXECUTED if execution is None else execution
        self.outcome.set_exception(GatewayError(value, reason, retry_after_ms=retry_after_ms, execution=execution))


class GatedProvider:
    """Stands for the paid upstream. Every attempt waits for the test."""

    name = "scripted"
    needs_key = False

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._arrived: asyncio.Queue[Call] = asyncio.Queue()

    async def generate(self, request: ModelRequest, sink: AnswerSink) -> Ending:
        call = Call(request, sink, asyncio.get_running_loop().create_future())
        self.calls.append(call)
        self._arrived.put_nowait(call)
        try:
            return await call.outcome
        except asyncio.CancelledError:
            call.closed = True
            raise

    async def next(self) -> Call:
        """The next attempt that was not looked at yet."""
        async with asyncio.timeout(SECONDS):
            return await self._arrived.get()

    async def test_key(self, key: Secret) -> str:
        return ""

    async def close(self) -> None:
        return


class Words:
    """An estimator that counts words."""

    def estimate(self, text: str) -> tuple[int, str]:
        return len(text.split()), "words"


class NoVault:
    """No key is kept in these tests."""

    def seal(self, provider: str, key: Secret) -> bytes:
        raise NotImplementedError

    def open(self, provider: str, sealed: bytes) -> Secret:
        raise NotImplementedError


@dataclass
class Reader:
    """Reads a feed; `items` is everything it gave."""

    feed: Feed
    ready: asyncio.Event
    items: list[Any] = field(default_factory=list)

    def take(self, limit: int = 64 * 1024) -> list[Any]:
        """What is there now."""
        self.ready.clear()
        new = self.feed.take(limit)
        self.items.extend(new)
        return new

    async def until(self, seen: Callable[["Reader"], bool], limit: int = 64 * 1024) -> "Reader":
        async with asyncio.timeout(SECONDS):
            while True:
                self.take(limit)
                if seen(self):
                    return self
                await self.ready.wait()

    async def all(self, limit: int = 64 * 1024) -> "Reader":
        """To the end of the feed."""
        return await self.until(lambda reader: reader.feed.done, limit)

    async def upto(self, seq: int, limit: int = 64 * 1024) -> "Reader":
        return await self.until(lambda reader: reader.feed.after_seq >= seq and reader.ends() >= seq, limit)

    def ends(self) -> int:
        return max((item.seq for item in self.items if hasattr(item, "seq")), default=0)

    def of(self, kind: type) -> list[Any]:
        return [item for item in self.items if isinstance(item, kind)]

    @property
    def ack(self) -> turn_pb2.MessageAccepted:
        (ack,) = self.of(turn_pb2.MessageAccepted)
        return ack

    @property
    def text(self) -> str:
        return "".join(item.delta for item in self.of(turn_pb2.TextDelta))

    @property
    def last(self) -> Any:
        return self.items[-1]

    def close(self) -> None:
        self.feed.close()


DELTAS = (turn_pb2.TextDelta, turn_pb2.ThinkingDelta, turn_pb2.ToolDelta)
EVENTS = (turn_pb2.MessageCommitted, turn_pb2.TurnStarted, *DELTAS, turn_pb2.TurnEnded, error_pb2.Error)


def events(items: Iterable[Any]) -> list[Any]:
    return [item for item in items if isinstance(item, EVENTS)]


def numbers(items: Iterable[Any]) -> list[int]:
    """Every sequence number that the events cover, in their order."""
    covered: list[int] = []
    for item in events(items):
        covered.extend(range(item.from_seq if isinstance(item, DELTAS) else item.seq, item.seq + 1))
    return covered


def story(items: Iterable[Any]) -> list[tuple[str, ...]]:
    """The events without their positions, neighbouring deltas joined: the same however they were cut."""
    told: list[tuple[str, ...]] = []
    for item in events(items):
        if isinstance(item, DELTAS):
            line = (type(item).__name__, item.turn_id, str(item.block), item.delta)
            if told and told[-1][:3] == line[:3]:
                line = (*line[:3], told.pop()[3] + item.delta)
        elif isinstance(item, error_pb2.Error):
            line = ("failed", item.turn_id, str(item.code))
        elif isinstance(item, turn_pb2.TurnEnded):
            line = ("ended", item.turn_id, str(item.state))
        else:
            line = (type(item).__name__, item.turn_id)
        told.append(line)
    return told


class House:
    """What app builds, without doors."""

    def __init__(
        self,
        store: Store,
        clock: StillClock | None = None,
        provider: Provider | None = None,
        limits: TimeLimits | None = None,
    ) -> None:
        self.store, self.clock = store, clock or StillClock()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.provider = provider or GatedProvider()
        self.live = LiveSessions(store)
        self.ended: list[Turn] = []
        catalog, ids = BuiltInCatalog(), NanoIds(self.clock)
        self.checkpoints = Checkpoints(store, self.live)
        self.run = RunTurn(
            store=store,
            live=self.live,
            catalog=catalog,
            providers={"scripted": self.provider},
            keys=KeyUse(NoVault(), self.clock, {}),
            estimator=Words(),
            clock=self.clock,
            ids=ids,
            checkpoints=self.checkpoints,
            spawn=self.spawn,
            observe=self.ended.append,
            max_tokens=4096,
        )
        self.cancel = CancelTurn(store, self.live, self.run)
        self.watching = WatchSession(store, self.live, self.clock, self.spawn)
        self.sending = SendMessage(
            store=store,
            live=self.live,
            run=self.run,
            cancel=self.cancel,
            watch=self.watching,
            catalog=catalog,
            clock=self.clock,
            ids=ids,
            default_model=MODEL,
            key_lifetime_ms=24 * HOUR_MS,
        )
        self.turns = ReadTurns(store, self.live)
        self.pulse = Pulse(self.live, self.run, self.cancel, limits or TimeLimits(), self.clock, self.spawn)
        self.compact = CompactSession(store=store, live=self.live, clock=self.clock, ids=ids)
        self.deleting = DeleteSession(store=store, live=self.live, clock=self.clock, end_turns=self.cancel.session)
        self.recover = RecoverTurns(
            store=store,
            live=self.live,
            run=self.run,
            catalog=catalog,
            estimator=Words(),
            clock=self.clock,
            ids=ids,
            observe=self.ended.append,
        )

    @property
    def gate(self) -> GatedProvider:
        assert isinstance(self.provider, GatedProvider)
        return self.provider

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def send(
        self,
        content: str,
        session: str = "",
        *,
        key: str = "",
        on_busy: str = "REJECT",
        model: str = "",
        unwatched: bool = False,
        caller: Principal = LOCAL,
    ) -> Reader:
        busy = chat_service_pb2.OnBusy.Value(f"ON_BUSY_{on_busy}")
        ready = asyncio.Event()
        send = Send(session, content, model, "", key, busy, unwatched)
        reader = Reader(await self.sending(send, caller, lambda _: ready.set()), ready)
        reader.take()
        return reader

    async def watch(self, session: str, epoch: int = 0, after_seq: int | None = None) -> Reader:
        ready = asyncio.Event()
        return Reader(await self.watching(session, epoch, after_seq, lambda _: ready.set()), ready)

    async def answered(self, content: str, *deltas: str, session: str = "", **how: Any) -> Reader:
        """A whole turn with a gated provider, read to its end and closed."""
        reader = await self.send(content, session, **how)
        (await self.gate.next()).end(*deltas)
        await reader.all()
        reader.close()
        return reader

    async def settled(self) -> None:
        """No turn is left."""
        async with asyncio.timeout(SECONDS):
            while self.live.turns:
                await asyncio.gather(*(active.ended.wait() for _, active in tuple(self.live.turns.values())))

    async def kill(self) -> None:
        """As a kill -9 does it: nothing is said any more."""
        while self.tasks:  # one that is being stopped takes the first cancellation for that
            for task in tuple(self.tasks):
                task.cancel()
            await asyncio.sleep(0)


class Weak:
    """A store that can be made to refuse; beneath it is the real one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.refusing = False
        self.reason = "STORAGE_UNAVAILABLE"
        self.refused = asyncio.Event()

    async def write(self, work: Callable[[Any], Any]) -> Any:
        if self.refusing:
            self.refused.set()
            raise GatewayError(error_pb2.ErrorReason.Value(f"ERROR_REASON_{self.reason}"), "no")
        return await self._store.write(work)

    async def read(self, work: Callable[[Any], Any]) -> Any:
        return await self._store.read(work)

    async def check(self) -> None:
        if self.refusing:
            raise GatewayError(error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE, "no")
        await self._store.check()
