"""NanoIds: fresh identifiers. app hands it to the use cases as a port."""

import os

from nanoid.resources import alphabet, size

_POOL_BYTES = 4096
# One character for each byte; 64 characters divide 256 values evenly, so none is likelier than another.
_CHARACTERS = bytes(ord(alphabet[byte % len(alphabet)]) for byte in range(256))


class NanoIds:
    """Implements the Ids port with nanoids: 21 characters of A-Z, a-z, 0-9, _ and -, 126 random bits.

    Random bytes are fetched for many ids at once: asking the system lets the interpreter go, and under load the event
    loop gets it back only when another thread is done.
    """

    __slots__ = ("_at", "_pool")

    def __init__(self) -> None:
        self._pool = ""
        self._at = 0

    def session(self) -> str:
        """A bare nanoid, as the original's sessions have. Never begins with `-`: a command line would take it for an
        option."""
        while (fresh := self._nanoid()).startswith("-"):
            pass
        return fresh

    def turn(self) -> str:
        """With the prefix `turn_`."""
        return f"turn_{self._nanoid()}"

    def message(self) -> str:
        """With the prefix `msg_`."""
        return f"msg_{self._nanoid()}"

    def _nanoid(self) -> str:
        start = self._at
        self._at = end = start + size
        if end > len(self._pool):
            self._pool = os.urandom(_POOL_BYTES).translate(_CHARACTERS).decode("ascii")
            start, self._at = 0, size
            end = size
        return self._pool[start:end]
