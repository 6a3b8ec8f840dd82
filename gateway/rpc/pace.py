"""Pace: when the next batch of a connection goes. Used by server and by a bridge in the same process.

A batch costs far more than a frame in it, but a frame that is alone should not wait. So a few batches go at once, and
after them, under load, each an interval after the one before has left: the busier the machine, the fewer batches. One
that is due still gives a few rounds of the event loop to others, unless it is urgent.
"""

FLUSH_SECONDS = 0.002
"""How far batches are apart under load. Over gRPC one costs the gateway about 130 us, whatever is in it."""
FREE_BATCHES = 4
ROUNDS = 5
"""How many rounds of the event loop a batch waits when it is due: a busy loop finds more in them, to one that has
nothing else to do they are some microseconds. They end after FLUSH_SECONDS: a round of many sockets is long."""


class Pace:
    """A leaky bucket. Times are those of the event loop's clock, in seconds."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due = 0.0

    @property
    def due(self) -> float:
        """The earliest time for the next batch; in the past when it may go at once."""
        return self._due

    def left(self, began: float, now: float) -> None:
        """A batch that was begun at `began`, be it due or not, has left by `now`. The time between is no rest."""
        # Nothing ever waits longer than an interval, however many went before their time.
        due = min(max(self._due, began - FREE_BATCHES * FLUSH_SECONDS), began)
        self._due = due + FLUSH_SECONDS + (now - began)
