"""Pace: when the next batch of a connection goes. Used by server and by a bridge in the same process.

A batch costs far more than a frame in it, but a frame that is alone should not wait. So a few batches go at once, and
after them, under load, one each interval.
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

    def sent(self, now: float) -> None:
        """A batch went."""
        self._due = max(self._due, now - FREE_BATCHES * self._interval) + self._interval
