"""WatchSession: follows a session, or one turn of it, from a position. Called by rpc's chat service and by
send_message.

A feed is a cursor into the session's log, never a queue: it is woken, takes everything since its cursor in one
stretch, and sleeps. A slow reader gets longer stretches and costs nothing meanwhile. What memory no longer holds is
read from storage, a few turns at a time, as the same events.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from agentspace.v1 import error_pb2, turn_pb2
from gateway.domain import ids as names
from gateway.domain import turn_event
from gateway.domain.error import GatewayError
from gateway.domain.message import text_of
from gateway.domain.session_log import Event, SessionLog
from gateway.domain.turn import is_terminal
from gateway.usecases.live_sessions import ActiveTurn, LiveSession, LiveSessions, Wake, held
from gateway.usecases.ports import PAGE_BYTES, Clock, Store
from gateway.usecases.replay import replay

SNAPSHOT_MESSAGES = 100
HEARTBEAT_SECONDS = 10.0

Item = (
    Event
    | turn_pb2.SessionCreated
    | turn_pb2.MessageAccepted
    | turn_pb2.SessionSnapshot
    | turn_pb2.SessionReset
    | turn_pb2.Heartbeat
)
"""What a feed gives: events and what introduces them."""

_logger = logging.getLogger(__name__)

Load = Callable[["Feed"], Coroutine[Any, Any, None]]
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


_ENDS = (turn_pb2.TurnEnded, error_pb2.Error)


class Feed:
    """One watcher's cursor. `take` gives what is new; `wake` was called whenever there may be something.

    `done` is True when nothing will ever follow; then `failure` is the turn's or the watch's error, if it had one.
    """

    __slots__ = (
        "_backlog",
        "_beat_at",
        "_first",
        "_load",
        "_loading",
        "_release",
        "after_seq",
        "beat",
        "done",
        "epoch",
        "failure",
        "live",
        "place",
        "turn_id",
        "wake",
    )

    def __init__(
        self,
        live: LiveSession,
        after_seq: int,
        turn_id: str,
        wake: Wake,
        load: Load,
        spawn: Spawn,
        release: Callable[[LiveSession], None],
        now: float,
    ) -> None:
        self.live = live
        self.epoch = live.log.epoch
        self.after_seq = after_seq
        self.wake = wake
        self.done = False
        self.failure: error_pb2.Error | None = None
        self.beat = False
        self.place: Sequence[Item] | None = None
        """Where it stands, if that was the end of the log: the list it was given last. Watchers of a session who have
        the same list get the same next, and may do without `take`."""
        self.turn_id = turn_id
        self._first: deque[Item] = deque()
        self._backlog: SessionLog | None = None
        self._loading: asyncio.Task[None] | None = None
        self._load = (load, spawn)
        self._release: Callable[[LiveSession], None] | None = release
        self._beat_at = now
        live.users += 1
        live.watchers.add(self)

    def put(self, item: Item) -> None:
        """Something to give ahead of the log."""
        self._first.append(item)

    def begin(self, log: SessionLog) -> None:
        """The cursor stands at the end of `log`."""
        self.epoch = log.epoch
        self.after_seq = log.last_seq
        self._backlog = None

    def take(self, limit: int) -> Sequence[Item]:
        """Everything new, up to about `limit` characters of text; empty when there is nothing yet. Not to be
        changed: watchers at the same place get the same list."""
        log, after_seq = self.live.log, self.after_seq
        if (
            self._first
            or self.beat
            or self.done
            or self._loading is not None
            or self._backlog is not None
            or after_seq < log.floor
            or log.epoch != self.epoch
            or self.live.deleted
        ):
            self.place = None
            return self._take_all(limit)
        if after_seq == log.last_seq:
            return []
        events: Sequence[Item]
        found = log.read(after_seq, limit)
        if len(found) == 1 and (not self.turn_id or self._is_middle(found[0])):
            # One delta, by far the most frequent case.
            self.after_seq, events = found[0].seq, found
        else:
            events = self._mine(found, log)
        self.place = None
        if self.after_seq < log.last_seq:
            self.wake(True)
        elif not self.turn_id:
            # Neither who has to be woken again nor who has to see the end of a turn can do without.
            self.place = events
        return events

    def _take_all(self, limit: int) -> Sequence[Item]:
        """What there is besides the newest events, and they."""
        items: Sequence[Item] = list(self._first)
        self._first.clear()
        beat, self.beat = self.beat, False
        if self.done or self._loading is not None:
            return items
        log = self.live.log
        if (self.after_seq < log.floor and self._backlog is None) or (log.epoch != self.epoch and not self.turn_id):
            load, spawn = self._load
            self._loading = spawn(load(self))
            return items
        source = self._backlog or log
        if self.after_seq < source.last_seq:
            events = self._mine(source.read(self.after_seq, limit), source)
            items = [*items, *events] if items else events
            if self._backlog is not None and self.after_seq >= self._backlog.last_seq:
                self._backlog = None
                self.wake(True)
            elif self.after_seq < source.last_seq:
                self.wake(True)
        if self.after_seq >= log.last_seq and self.live.deleted and not self.turn_id:
            self.fail(_session_deleted(self.live.session_id))
            items = [*items, *self._first]
            self._first.clear()
        if beat and not items:
            return [heartbeat(self.live, self.turn_id, self._beat_at)]
        return items

    def _is_middle(self, event: Event) -> bool:
        """Whether it is one of the turn that is followed, and not its end."""
        return event.turn_id == self.turn_id and type(event) not in _ENDS

    def _mine(self, events: Sequence[Event], source: SessionLog) -> Sequence[Item]:
        """Those of the turn that is followed, up to its end; all where a whole session is."""
        if not events:
            self.after_seq = source.last_seq
            return []
        if not self.turn_id:
            self.after_seq = events[-1].seq
            return events
        mine: list[Item] = []
        for event in events:
            self.after_seq = event.seq
            if event.turn_id == self.turn_id:
                mine.append(event)
                if type(event) in _ENDS:
                    self.done = True
                    self.failure = event if isinstance(event, error_pb2.Error) else None
                    break
        return mine

    def loaded(self, backlog: SessionLog | None, error: GatewayError | None = None) -> None:
        """What storage had after the cursor; the loader calls this."""
        self._loading = None
        self._backlog = backlog
        if error is not None:
            self.fail(error)
        self.wake(True)

    def fail(self, error: GatewayError) -> None:
        """The watch ends with an error that is not the turn's."""
        self.failure = turn_event.error_message(error)
        self.put(self.failure)
        self.done = True

    def pulse(self, now: float) -> None:
        """Time passes: now and then a beat is due, which is said if there is nothing else to say."""
        if now - self._beat_at >= HEARTBEAT_SECONDS:
            self._beat_at = now
            self.beat = True
            self.wake(True)

    def close(self) -> None:
        """The reader is gone. Does nothing the second time."""
        if self._release is not None:
            self.live.watchers.discard(self)
            self._release(self.live)
            self._release = None
            if self._loading is not None:
                self._loading.cancel()


class WatchSession:
    """Opens feeds."""

    def __init__(self, store: Store, live: LiveSessions, clock: Clock, spawn: Spawn) -> None:
        self._store = store
        self._live = live
        self._clock = clock
        self._spawn = spawn

    def turn(self, live: LiveSession, turn_id: str, after_seq: int, wake: Wake) -> Feed:
        """Follow one turn of a live session to its end."""
        return self._feed(live, after_seq, turn_id, wake)

    async def __call__(self, session: str, epoch: int, after_seq: int | None, wake: Wake) -> Feed:
        """Follow a session. Raises SESSION_NOT_FOUND."""
        live = await self._live.acquire(names.resolve_session(session))
        try:
            reset = None if after_seq is None else _reset(live, epoch, after_seq)
            if after_seq is not None and reset is None:
                return self._feed(live, after_seq, "", wake)
            feed = self._feed(live, live.log.last_seq, "", wake)
            try:
                await self._introduce(feed, reset)
            except BaseException:
                feed.close()
                raise
            return feed
        finally:
            self._live.release(live)

    async def _introduce(self, feed: Feed, reset: turn_pb2.ResetReason.ValueType | None) -> None:
        """Put a snapshot ahead of the feed's events, and a reset ahead of that when there is a reason for one."""
        live = feed.live
        # No commit happens while the lock is held, so storage and log agree here; deltas are only in the log.
        async with held(live):
            # What is being answered has its place in the snapshot too.
            room = PAGE_BYTES - (len(text_of(live.running.log.content()).encode()) if live.running else 0)
            messages, truncated = await self._store.read(
                lambda tx: tx.messages.page(
                    live.session_id, after=None, limit=SNAPSHOT_MESSAGES, newest_first=True, generation=0, room=room
                )
            )
            log = live.log
            if reset is not None:
                feed.put(
                    turn_pb2.SessionReset(session_id=live.session_id, reason=reset, epoch=log.epoch, seq=log.last_seq)
                )
            snapshot = turn_pb2.SessionSnapshot(
                session_id=live.session_id,
                epoch=log.epoch,
                seq=log.last_seq,
                messages=[turn_event.message(m) for m in reversed(messages)],
                truncated=truncated,
                queued_turn_ids=[queued.turn.turn_id for queued in live.queued],
            )
            if live.running is not None:
                snapshot.active_turn.CopyFrom(_active(live.running))
            feed.put(snapshot)
            feed.begin(log)

    def _feed(self, live: LiveSession, after_seq: int, turn_id: str, wake: Wake) -> Feed:
        return Feed(
            live, after_seq, turn_id, wake, self._load, self._spawn, self._live.release, self._clock.monotonic()
        )

    async def _load(self, feed: Feed) -> None:
        """Give a feed the next stored events after its cursor, or a new beginning when the session has a new epoch."""
        live, after_seq = feed.live, feed.after_seq
        floor, epoch = live.log.floor, live.log.epoch
        try:
            if epoch != feed.epoch and not feed.turn_id:
                await self._introduce(feed, turn_pb2.RESET_REASON_EPOCH_CHANGED)
                feed.loaded(None)
                return
            backlog = await self._store.read(lambda tx: replay(tx, live.session_id, epoch, after_seq, floor))
        except GatewayError as error:
            feed.loaded(None, error)
        except Exception:  # a bug must end the watch, not leave it waiting
            _logger.exception("the events of session %s after %d could not be read", live.session_id, after_seq)
            feed.loaded(None, GatewayError(error_pb2.ERROR_REASON_INTERNAL, "the gateway failed; its log says why"))
        else:
            feed.loaded(backlog)


def heartbeat(live: LiveSession, turn_id: str, now: float) -> turn_pb2.Heartbeat:
    """How a turn, or without one the session's next turn, is doing at the monotonic time `now`."""
    active = next((a for a in live.active() if turn_id in ("", a.turn.turn_id)), None)
    if active is None:
        return turn_pb2.Heartbeat(session_id=live.session_id)
    idle = int((now - active.upstream_at) * 1000) if active.upstream_at else 0
    return turn_pb2.Heartbeat(
        session_id=live.session_id,
        turn_id=active.turn.turn_id,
        phase=active.phase,
        upstream_idle_ms=max(idle, 0),
    )


def _reset(live: LiveSession, epoch: int, after_seq: int) -> turn_pb2.ResetReason.ValueType | None:
    """Why a position can't be used; None when it can. Without an epoch only the very beginning can, which is the same
    in all of them; but the events from there on do not tell the history of a fork or of what was compacted."""
    log = live.log
    if epoch == 0 and after_seq == 0:
        return None if live.log_is_whole else turn_pb2.RESET_REASON_EPOCH_CHANGED
    if epoch == 0:
        return turn_pb2.RESET_REASON_EPOCH_UNKNOWN
    if epoch != log.epoch:
        return turn_pb2.RESET_REASON_EPOCH_CHANGED
    if after_seq > log.last_seq or after_seq < 0:
        return turn_pb2.RESET_REASON_POSITION_AHEAD
    return None


def _active(active: ActiveTurn) -> turn_pb2.ActiveTurn:
    assert not is_terminal(active.turn.state)
    content = active.log.content()
    return turn_pb2.ActiveTurn(
        turn_id=active.turn.turn_id,
        message_id=active.turn.message_id,
        model=active.turn.model,
        phase=active.phase,
        blocks=[turn_event.block(b) for b in content],
        content=text_of(content),
    )


def _session_deleted(session_id: str) -> GatewayError:
    return GatewayError(
        error_pb2.ERROR_REASON_SESSION_DELETED, "the session was deleted", metadata={"sessionId": session_id}
    )
