"""NanoIds: fresh identifiers. app hands it to the use cases as a port."""

import os

from nanoid.resources import alphabet, size

from gateway.usecases.ports import Clock

TIME_CHARACTERS = 7
TICKS_PER_SECOND = 64
RANDOM_CHARACTERS = size - TIME_CHARACTERS
# In the order of their bytes, and without `-`: a command line would take an id that begins with it for an option.
_DIGITS = "".join(sorted(alphabet)).removeprefix("-")
_POOL_BYTES = 4096
# One character for each byte; 64 characters divide 256 values evenly, so none is likelier than another.
_CHARACTERS = bytes(ord(alphabet[byte % len(alphabet)]) for byte in range(256))


class NanoIds:
    """Implements the Ids port: 21 characters of nanoid's alphabet, of which 7 are the present 64th of a second and 14
    random, 84 bits of them.

    Ids of one time sort next to each other, so what is written together lies together in every index by id: a commit
    changes fewer pages, and the pages of a large store that matter fit in memory. Random bytes are fetched for many ids
    at once: asking the system lets the interpreter go, and under load the event loop gets it back only when another
    thread is done.
    """

    __slots__ = ("_at", "_clock", "_pool", "_prefix", "_tick")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tick = -1
        self._prefix = ""
        self._pool = ""
        self._at = 0

    def session(self) -> str:
        """Bare, as the original's sessions have it."""
        return self._nanoid()

    def turn(self) -> str:
        """With the prefix `turn_`."""
        return f"turn_{self._nanoid()}"

    def message(self) -> str:
        """With the prefix `msg_`."""
        return f"msg_{self._nanoid()}"

    def _nanoid(self) -> str:
        tick = self._clock.now_ms() * TICKS_PER_SECOND // 1000
        if tick != self._tick:
            self._tick, self._prefix = tick, _written(tick)
        start = self._at
        self._at = end = start + RANDOM_CHARACTERS
        if end > len(self._pool):
            self._pool = os.urandom(_POOL_BYTES).translate(_CHARACTERS).decode("ascii")
            start, self._at = 0, RANDOM_CHARACTERS
            end = RANDOM_CHARACTERS
        return self._prefix + self._pool[start:end]


def _written(tick: int) -> str:
    """A tick since 1970 as characters that sort as it does, for the next 1,900 years."""
    digits = ""
    for _ in range(TIME_CHARACTERS):
        tick, digit = divmod(tick, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
