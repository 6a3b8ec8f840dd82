"""Pace: when the next batch of a connection goes. Used by server and by a bridge in the same process.

A batch costs far more than a frame in it, but a frame that is alone should not wait. So a few batches go at once, and
after them, under load, each an interval after the one before has left: the busier the machine, the fewer batches.
"""

FREE_BATCHES = 4


class Pace:
    """A leaky bucket. `interval` is in seconds; times are those of the event loop's clock."""

    __slots__ = ("_due", "_interval")

    def __init__(self, interval: float) -> None:
        self._due = 0.0
        self._interval = interval

    @property
    def due(self) -> float:
        """The earliest time for the next batch; in the past when it may go at once."""
        return self._due

    def left(self, began: float, now: float) -> None:
        """A batch that was begun at `began`, be it due or not, has left by `now`. The time between is no rest."""
        # Nothing ever waits longer than an interval, however many went before their time.
        due = min(max(self._due, began - FREE_BATCHES * self._interval), began)
        self._due = due + self._interval + (now - began)
