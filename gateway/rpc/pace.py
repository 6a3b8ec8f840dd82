"""Pace: when the next batch of a connection goes. Used by server and by a bridge in the same process.

A batch costs far more than a frame in it, but a frame that is alone should not wait. So a few batches go at once, and
after them, under load, one each two milliseconds.
"""

FLUSH_SECONDS = 0.002
FREE_BATCHES = 4


class Pace:
    """A leaky bucket. Times are those of the event loop's clock."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due = 0.0

    @property
    def due(self) -> float:
        """The earliest time for the next batch; in the past when it may go at once."""
        return self._due

    def sent(self, now: float) -> None:
        """A batch went."""
        self._due = max(self._due, now - FREE_BATCHES * FLUSH_SECONDS) + FLUSH_SECONDS
