"""WebSocket: aiohttp's, but for how it parts from a client that broke the protocol. Made and used by websocket.py.

aiohttp closes such a connection at once. Then the system answers what the client still has on its way, most of a frame
that is too large, with a reset, which can overtake the close frame: the client would never hear what was wrong.
"""

import asyncio
from contextlib import suppress

from aiohttp import WSCloseCode, web

from bridge import closing
from bridge.closing import Closing

PART_SECONDS = 5.0
"""How long a client may go on sending after the close frame."""

BROKEN = {why.code: why for why in (closing.PROTOCOL_ERROR, closing.INVALID_TEXT, closing.TOO_BIG)}
"""What aiohttp closes for by itself."""


class WebSocket(web.WebSocketResponse):
    """See above. `transport` is to be set when it is prepared."""

    transport: asyncio.Transport | None = None
    parted = False
    """Nothing may be written any more."""

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """Close it; after a broken rule first say so and wait until the client has gone."""
        if code in BROKEN and self.transport is not None and not (self.parted or self.transport.is_closing()):
            self.parted = True
            await _part(self.transport, BROKEN[code])
        return await super().close(code=code, message=message, drain=drain)


async def _part(transport: asyncio.Transport, why: Closing) -> None:
    gone = asyncio.get_running_loop().create_future()
    transport.set_protocol(_Deaf(transport.get_protocol(), gone))
    transport.write(why.frame())
    transport.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(PART_SECONDS):
            await gone


class _Deaf(asyncio.Protocol):
    """Drops what comes. All else it tells the protocol that was there before, and `gone` when the client has gone."""

    def __init__(self, before: asyncio.BaseProtocol, gone: "asyncio.Future[None]") -> None:
        self._before = before
        self._gone = gone

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._before.connection_lost(error)
        if not self._gone.done():
            self._gone.set_result(None)
