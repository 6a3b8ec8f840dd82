"""LiveSessions: the sessions something is going on in: a turn runs or waits, or somebody watches. Each is in memory
once.

A live session is where writers and watchers of one session meet on this node. send_message and run_turn append to its
log and call `notify`; watchers are woken and read for themselves. Between uses a session is only in storage.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from agentspace.v1 import error_pb2, turn_pb2
from agentspace.v1.turn_pb2 import TurnPhase, TurnState
from gateway.domain.error import GatewayError, session_not_found
from gateway.domain.session import Session
from gateway.domain.session_log import SessionLog
from gateway.domain.turn import Turn, TurnPositions
from gateway.domain.turn_log import TurnLog
from gateway.domain.usage import TokenCounts
from gateway.usecases.ports import Store

LOCK_SECONDS = 10.0
"""How long anybody waits for a session that waits for the database."""


Wake = Callable[[bool], None]
"""See Watcher."""


class Watcher(Protocol):
    """Somebody who reads a session's log."""

    def wake(self, soon: bool) -> None:
        """There may be something new to read; it has time, unless it is wanted `soon`. Called for every delta: cheap,
        and never raises."""
        ...

    def pulse(self, now: float) -> None:
        """Time passes: `now` is the monotonic clock. Called about every quarter of a second."""
        ...


@dataclass(frozen=True, slots=True)
class Stopped:
    """A turn was told to end. `state` is how it ends; `error` why, unless that was somebody's wish."""

    state: TurnState.ValueType
    error: GatewayError | None = None


@dataclass(slots=True, eq=False)
class ActiveTurn:
    """A turn in memory: queued or running. `turn` is its stored form as of the last commit."""

    turn: Turn
    log: TurnLog
    message_seq: int
    """The sequence number of its user message."""
    task: "asyncio.Task[None] | None" = None
    phase: TurnPhase.ValueType = turn_pb2.TURN_PHASE_QUEUED
    upstream_at: float = 0.0
    """When the provider last sent a byte, on the monotonic clock; 0 before the first."""
    content_at: float = 0.0
    """When it last sent content."""
    dispatched_at: float = 0.0
    """When the present attempt began."""
    began_at: float = 0.0
    """When the turn began to run."""
    counts: TokenCounts | None = None
    """What the present attempt has used, as far as the provider told."""
    saved_chunks: int = 0
    """Chunks in the checkpoints so far."""
    saved_characters: int = 0
    saved_blocks: int = 0
    """Blocks that were complete at the last checkpoint."""
    saved_counts: TokenCounts | None = None
    stop: "Stopped | None" = None
    """Why it was told to stop."""
    ending: bool = False
    """Its end is being stored: it can't be stopped any more."""
    unwatched_since: float = 0.0
    """When its last watcher left, on the monotonic clock; 0 while it is watched."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class LiveSession:
    """One session in memory.

    `lock` is held by whoever commits something that gets a sequence number, or reads storage for a snapshot, so that
    the order of commits and the order of events are the same. Deltas need no lock: only the running turn appends them.
    """

    __slots__ = (
        "broken",
        "deleted",
        "deletion",
        "lock",
        "log",
        "log_is_whole",
        "queued",
        "running",
        "session_id",
        "unstored",
        "users",
        "watchers",
    )

    def __init__(self, session_id: str, epoch: int, last_seq: int) -> None:
        self.session_id = session_id
        self.log = SessionLog(epoch, last_seq)
        self.log_is_whole = True
        """The events from the first on tell the whole history: it is no fork and was never compacted."""
        self.lock = asyncio.Lock()
        self.running: ActiveTurn | None = None
        self.queued: list[ActiveTurn] = []
        self.unstored: list[tuple[str, TurnPositions]] = []
        """Ends that got their number after their commit; the next end stores it."""
        self.watchers: set[Watcher] = set()
        self.users = 0
        self.deleted = False
        self.broken = False
        """Its log can be brought into no order that is stored, so nobody may go on with it before the next start."""
        self.deletion = 0
        """The session's revision when it was last deleted or restored."""

    def notify(self, *, soon: bool = True) -> None:
        """Wake every watcher. What only continues an answer is not wanted `soon`."""
        for watcher in self.watchers:
            watcher.wake(soon)

    def active(self) -> list[ActiveTurn]:
        """The running turn and then the queued ones."""
        return [self.running, *self.queued] if self.running is not None else list(self.queued)


def stuck() -> GatewayError:
    """STORAGE_UNAVAILABLE for a session whose last commit is not done."""
    return GatewayError(
        error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE, "the session waits for the database", retry_after_ms=2000
    )


@asynccontextmanager
async def held(live: LiveSession) -> AsyncIterator[None]:
    """The session's lock, or STORAGE_UNAVAILABLE when a commit before has been stuck for too long."""
    try:
        async with asyncio.timeout(LOCK_SECONDS):
            await live.lock.acquire()
    except TimeoutError:
        raise stuck() from None
    try:
        yield
    finally:
        live.lock.release()


class _Load:
    """A read of a session under way."""

    __slots__ = ("stale",)

    def __init__(self) -> None:
        self.stale = False


class LiveSessions:
    """All live sessions of this node. Whoever gets one hands it back with `release`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sessions: dict[str, LiveSession] = {}
        self._loads: dict[str, set[_Load]] = {}
        self.turns: dict[str, tuple[LiveSession, ActiveTurn]] = {}
        """Queued and running turns by id."""

    def __iter__(self) -> Iterator[LiveSession]:
        return iter(tuple(self._sessions.values()))

    def find(self, session_id: str) -> LiveSession | None:
        """The session if it is live; not to be kept across an await."""
        return self._sessions.get(session_id)

    def create(self, session: Session) -> LiveSession:
        """The live form of a session that was just read or is about to be stored."""
        live = self._sessions.get(session.session_id)
        if live is None:
            live = LiveSession(session.session_id, session.epoch, session.last_seq)
            live.log_is_whole = not session.forked_from and session.generation == 1
            self._sessions[session.session_id] = live
        live.users += 1
        return live

    async def acquire(self, session_id: str) -> LiveSession:
        """The session, from storage if need be. Raises SESSION_NOT_FOUND, also for a deleted one, and INTERNAL for one
        that is broken."""
        while (live := self._sessions.get(session_id)) is None:
            load = _Load()
            loads = self._loads.setdefault(session_id, set())
            loads.add(load)
            try:
                session = await self._store.read(lambda tx: tx.sessions.get(session_id))
            finally:
                loads.discard(load)
                if not loads:
                    self._loads.pop(session_id, None)
            if not load.stale and session_id not in self._sessions:
                if session is None or session.deleted_ms:
                    raise session_not_found(session_id)
                return self.create(session)
        if live.deleted:
            raise session_not_found(session_id)
        if live.broken:
            raise GatewayError(
                error_pb2.ERROR_REASON_INTERNAL,
                "the session cannot be stored; the gateway's log says why, and its next start tries to repair it",
            )
        live.users += 1
        return live

    def bar(self, session_id: str) -> None:
        """Keep everybody from a session, until the next start."""
        live = self._sessions.setdefault(session_id, LiveSession(session_id, 0, 0))
        live.users += 1
        live.broken = True

    def release(self, live: LiveSession) -> None:
        """The caller is done with it; the last one out frees its memory."""
        live.users -= 1
        if live.users == 0:
            del self._sessions[live.session_id]
            self.changed(live.session_id)

    def changed(self, session_id: str) -> None:
        """The session was stored anew while it is not live: what reads of it bring that are under way may be older."""
        for load in self._loads.get(session_id, ()):
            load.stale = True

    def add_turn(self, live: LiveSession, active: ActiveTurn) -> None:
        """A turn is queued or running; it uses the session until `remove_turn`."""
        live.users += 1
        self.turns[active.turn.turn_id] = (live, active)

    def remove_turn(self, live: LiveSession, active: ActiveTurn) -> None:
        """The turn has ended and its end is stored and announced."""
        del self.turns[active.turn.turn_id]
        self.release(live)
