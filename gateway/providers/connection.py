"""Connection: one HTTP/1.1 connection to a provider. One request at a time; the answer is handed on while it arrives.

Made by dial, kept by transport. The bytes go from the socket through llhttp (httptools) to the receiver within the
callback that read them: no task is woken for a delta, nothing is queued, and all that one read brought is one piece.
"""

import asyncio
import select
from collections.abc import Mapping
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

LONGEST_HEAD_BYTES = 64 * 1024
"""How much may come without any of it being body: a head, or the frame of a chunked body."""
BODY_END_SECONDS = 0.02
"""How long to wait for the end of a body after the receiver has had enough: without it the connection cannot be used
again."""


class NotSentError(Exception):
    """Nothing was sent: the address is none, nobody is there, a proxy refused, or the connection had ended."""


class CutOffError(Exception):
    """The connection ended before the answer did, the answer took longer than the receiver allows, or what came was
    none. The request may have been executed."""


class Receiver(Protocol):
    """Who gets an answer. Whatever its methods raise ends the exchange, and is raised there."""

    def head(self, status: int, headers: Mapping[str, str]) -> float | None:
        """The answer begins. Names of headers are in lower case; of those sent twice the last counts. Returns how many
        seconds its body may take; None: however long it takes."""
        ...

    def body(self, data: bytes) -> bool:
        """The next piece of the body. True: nothing that may follow is needed."""
        ...


class Connection(asyncio.Protocol):
    """See above. `idle_since` belongs to whoever keeps it."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._answered: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._status = 0
        self._headed = self._enough = self._complete = self._kept = False
        self._barren = 0
        self._poll: select.poll | None = None

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        # Over TLS a goodbye closes the transport some time before connection_lost is called.
        transport = self._transport
        return transport is not None and self._receiver is None and not transport.is_closing()

    @property
    def silent(self) -> bool:
        """Whether nothing waits to be read. While idle, what waits is the end, which the event loop has yet to see."""
        if self._transport is None:
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket"), select.POLLIN)
        return not self._poll.poll(0)

    async def ask(self, request: bytes, receiver: Receiver) -> None:
        """Send a whole request and hand the answer to `receiver`, until it is complete or the receiver has enough.

        Raises NotSentError when it had ended before, CutOffError, and what the receiver raises. The connection is
        closed at once, unless the answer was read to its end; so it is when the caller is cancelled.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise NotSentError
        self._receiver = receiver
        self._headed = self._enough = self._complete = self._kept = False
        self._barren = self._status = 0
        self._headers = {}
        self._answered = self._loop.create_future()
        transport.write(request)
        try:
            await self._answered
        finally:
            self._receiver = self._answered = None
            self._set_timer(None)
            if not (self._complete and self._kept):
                self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # --- from the event loop ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        # uvloop does not call its transports asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed."""
        self._transport = self._parser = None
        self._end(None if self._enough else CutOffError())

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        receiver, parser = self._receiver, self._parser
        if receiver is None or parser is None:
            self.abort()  # nobody has asked
            return
        if self._answered is None or self._answered.done():
            # The exchange is over, and whoever made it has yet to hear so; one wake-up may bring several reads.
            self._complete = False
            return
        enough = broken = False
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            # What came before the nonsense counts.
            broken, self._kept = True, False
        try:
            if self._status and not self._headed:
                self._headed = True
                if (seconds := receiver.head(self._status, self._headers)) is not None:
                    self._set_timer(self._loop.call_later(seconds, self._end, CutOffError()))
            if pieces := self._pieces:
                self._pieces = []
                self._barren = 0
                enough = receiver.body(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            else:
                self._barren += len(data)
        except Exception as error:  # noqa: BLE001 - it belongs to the one who asked
            self._end(error)
            return
        if self._complete:
            self._end(None)
        elif broken or self._barren > LONGEST_HEAD_BYTES:
            self._end(None if enough or self._enough else CutOffError())
        elif enough and not self._enough:
            self._enough = True
            self._set_timer(self._loop.call_later(BODY_END_SECONDS, self._end, None))

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def _end(self, error: Exception | None) -> None:
        answered = self._answered
        if answered is None or answered.done():
            return
        if error is None:
            answered.set_result(None)
        else:
            answered.set_exception(error)

    # --- from the parser --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins. After a complete one nobody has asked for it: raising ends the parsing."""
        if self._complete:
            raise HttpParserError

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which nobody needs."""
        if not self._headed:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is complete."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        # Those below 200 come ahead of the answer.
        if status >= 200:
            self._status = status
        else:
            self._headers = {}

    def on_body(self, data: bytes) -> None:
        """Part of the body."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The answer is complete."""
        assert self._parser is not None
        if self._status:
            self._complete = True
            self._kept = self._parser.should_keep_alive()
