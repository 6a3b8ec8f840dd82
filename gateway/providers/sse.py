"""Server-sent events out of bytes: the data of each event, nothing else. Sans-I/O; used by anthropic for every network
read, so it is short on purpose: no event objects, no decoding, event names are left to the data itself.
"""

MAX_EVENT_BYTES = 16 * 1024 * 1024
# A number, because looking for bytes in bytes makes and drops an exception each time.
_CR = ord("\r")


class SseError(ValueError):
    """An event larger than MAX_EVENT_BYTES."""


class SseParser:
    """Feed it what arrives, in whatever pieces."""

    __slots__ = ("_data", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: bytes | bytearray = b""

    def feed(self, chunk: bytes) -> list[bytes | bytearray]:
        """The data of the events that `chunk` completes; lines of one event are joined by a newline.

        Comments and other fields are left out, so are events without data. Raises SseError.
        """
        cut = chunk.rfind(b"\n") + 1
        if _CR in chunk:
            # Lines may end in a lone CR; one at the very end may be half of a CRLF and has to wait. Not if it ends an
            # empty line, and so an event: to it a LF that follows is one more empty line, which does nothing.
            cut = max(cut, chunk.rfind(b"\r", 0, -1) + 1)
            last = len(chunk) - 1
            if cut == last and chunk[last] == _CR and (cut or not self._rest or self._rest[-1] == _CR):
                cut += 1
        if not cut:
            self._keep(chunk)
            return []
        if self._rest:
            lines = (bytes(self._rest) + chunk[:cut]).splitlines()
            self._rest.clear()
        else:
            lines = chunk[:cut].splitlines()
        if cut < len(chunk):
            self._keep(chunk[cut:])

        events: list[bytes | bytearray] = []
        data = self._data
        for line in lines:
            if not line:
                if data:
                    events.append(data)
                    data = b""
            elif line.startswith(b"data:"):
                value = line[6:] if line.startswith(b" ", 5) else line[5:]
                if not data:
                    data = value
                    continue
                if isinstance(data, bytes):
                    data = bytearray(data)
                data += b"\n"
                data += value
                if len(data) > MAX_EVENT_BYTES:
                    raise SseError
        self._data = data
        return events

    def _keep(self, rest: bytes) -> None:
        self._rest += rest
        if len(self._rest) > MAX_EVENT_BYTES:
            raise SseError
