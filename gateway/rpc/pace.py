"""Pace: when the next batch of a connection goes. Used by server and by a bridge in the same process.

A batch costs far more than a frame in it, but a frame that is alone should not wait. So a few batches go at once, and
after them, under load, each an interval after the one before, or, where there is time, after the first frame in it
was ready: the busier the machine, the fewer batches. One that is due still gives a few rounds of the event loop to
others.
"""

import asyncio
from collections.abc import Callable

LATER, SOON, NOW = 1, 2, 3
"""How much of a hurry what is ready is in: more of an answer that has begun; all else, beginnings and ends of answers
among it; the answer to a single question, which is worth a batch of its own."""
LATER_SECONDS, SOON_SECONDS = 0.0035, 0.002
"""Under load: how long what has time waits for more, and how far batches are apart that are to go soon."""
FREE_BATCHES = 4
ROUNDS = 5
"""How many rounds of the event loop a batch waits when it is due: a busy loop finds more in them, to one that has
nothing else to do they are some microseconds. They end after SOON_SECONDS: a round of many sockets is long."""


class Pace:
    """A leaky bucket that calls `go` when a batch is due, which then calls `begin`, sends, and calls `left`."""

    __slots__ = ("_began", "_due", "_go", "_haste", "_loop", "_sending", "_timer")

    def __init__(self, go: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self._go = go
        self._loop = loop
        self._timer: asyncio.Handle | None = None
        self._haste = 0
        self._sending = False
        self._began = 0.0
        # When the next batch goes that has time, or may go while nothing is ready.
        self._due = 0.0

    def hurry(self, haste: int) -> None:
        """Something is ready, or what is ready is in more of a hurry than was said before."""
        self._haste = haste
        if not self._sending:
            if haste == LATER and (now := self._loop.time()) < self._due:
                # The interval is from here, not from the batch before: nothing waits longer, and more comes to it.
                self._due = now + LATER_SECONDS
            self._schedule()

    def begin(self) -> None:
        """A batch is being made, be it due or not. What is said to be ready from now on is for the next."""
        self._stop()
        self._haste = 0
        self._sending = True
        self._began = self._loop.time()

    def left(self) -> None:
        """It has left."""
        # Nothing ever waits longer than an interval, however many went before their time.
        self._due = min(max(self._due, self._began - FREE_BATCHES * LATER_SECONDS), self._began) + LATER_SECONDS
        self._sending = False
        if self._haste:
            self._schedule()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._stop()
        now = self._loop.time()
        due = self._due if self._haste == LATER else min(self._due - LATER_SECONDS, self._began) + SOON_SECONDS
        if self._haste == NOW:
            self._timer = self._loop.call_soon(self._round, 1, now)
        elif due <= now:
            self._timer = self._loop.call_soon(self._round, ROUNDS, now + SOON_SECONDS)
        else:
            self._timer = self._loop.call_at(due, self._round, ROUNDS, due + SOON_SECONDS)

    def _round(self, left: int, until: float) -> None:
        if left > 1 and self._loop.time() < until:
            self._timer = self._loop.call_soon(self._round, left - 1, until)
        else:
            self._timer = None
            self._go()
