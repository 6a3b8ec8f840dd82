"""Pulse: what happens because time passes. Ends turns whose provider is silent for too long or that nobody watches any
more, and lets watchers know that their session is alive. One task of the application.
"""

import asyncio
import logging
import math
from dataclasses import dataclass

from agentspace.v1 import error_pb2
from gateway.domain.error import MAY_HAVE_EXECUTED, GatewayError
from gateway.domain.turn import FAILED
from gateway.usecases.cancel_turn import CancelTurn
from gateway.usecases.live_sessions import ActiveTurn, LiveSession, LiveSessions, Stopped
from gateway.usecases.ports import Clock
from gateway.usecases.run_turn import RunTurn, Spawn

INTERVAL_SECONDS = 0.25

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds a running turn may wait: for the first byte of an attempt, for content once bytes come (`idle`; `pinged`
    while the provider shows that it lives), and in all. `unwatched` is the grace of a turn, running or queued, that
    ends with its last watcher."""

    first_byte: float = 120.0
    idle: float = 120.0
    pinged: float = 600.0
    total: float = 3600.0
    unwatched: float = 10.0


class Pulse:
    """Looks at every live session four times a second."""

    def __init__(
        self, live: LiveSessions, run: RunTurn, cancel: CancelTurn, limits: TimeLimits, clock: Clock, spawn: Spawn
    ) -> None:
        self._live = live
        self._run = run
        self._cancel = cancel
        self._limits = limits
        self._clock = clock
        self._spawn = spawn

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                self.beat()
            except Exception:  # a bug must not be the end of all limits
                _logger.exception("a look at the live sessions failed")

    def beat(self) -> None:
        """One look."""
        now = self._clock.monotonic()
        for live in self._live:
            for watcher in tuple(live.watchers):
                watcher.pulse(now)
            if live.running is not None:
                self._check(live.running, now)
            for active in live.active():
                if active.turn.cancel_when_unwatched and self._is_left(live, active, now):
                    self._spawn(self._give_up(active))

    def _check(self, active: ActiveTurn, now: float) -> None:
        exceeded = self._exceeded(active, now)
        if exceeded:
            error = GatewayError(
                error_pb2.ERROR_REASON_UPSTREAM_TIMEOUT,
                f"the provider exceeded the {exceeded} limit",
                metadata={"limit": exceeded},
                execution=MAY_HAVE_EXECUTED,
            )
            self._run.stop(active, Stopped(FAILED, error))

    def _is_left(self, live: LiveSession, active: ActiveTurn, now: float) -> bool:
        if live.watchers:
            active.unwatched_since = 0.0
        elif not active.unwatched_since:
            active.unwatched_since = now
        elif now - active.unwatched_since >= self._limits.unwatched:
            # While it ends it is not left once more.
            active.unwatched_since = math.inf
            return True
        return False

    async def _give_up(self, active: ActiveTurn) -> None:
        try:
            await self._cancel.turn(active.turn.turn_id)
        except Exception:
            _logger.exception("turn %s that nobody watches goes on", active.turn.turn_id)
            active.unwatched_since = 0.0

    def _exceeded(self, active: ActiveTurn, now: float) -> str:
        limits = self._limits
        if now - active.began_at > limits.total:
            return "total"
        if not active.upstream_at:
            return "first_byte" if now - (active.dispatched_at or active.began_at) > limits.first_byte else ""
        if now - active.upstream_at > limits.idle:
            return "idle"
        return "idle" if now - max(active.content_at, active.dispatched_at) > limits.pinged else ""
