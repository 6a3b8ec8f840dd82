"""The bridge put together: link, channels, sockets, routes, and the server that listens.

Called by __main__.py; the only module that knows all the others.
"""

import asyncio
import errno
import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from bridge import closing
from bridge.channels import Channels
from bridge.config import Config
from bridge.frames import Codec
from bridge.guard import Guard
from bridge.http import Handler, Routes
from bridge.link import Link
from bridge.telemetry import Metrics
from bridge.websocket import Sockets

LOG = logging.getLogger(__name__)

HEAD_SECONDS = 10.0
"""How long a client may take from connecting to the end of its first request's head."""
IDLE_SECONDS = 30.0
"""How long a kept-alive connection may take for its next request."""
LINK_SECONDS = 3.0
"""How long the bridge waits for the gateway before it calls itself ready."""
STOP_SECONDS = 1.0
"""How long plain requests may still run when the bridge stops."""


class CertificateError(Exception):
    """The certificate or its key cannot be used."""


class HeadTimer:
    """Drops connections whose first request does not arrive in time; aiohttp itself would wait for ever."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}

    def watch(self, protocol: web.RequestHandler) -> None:
        """Start the clock for a new connection."""
        self._waiting[protocol] = asyncio.get_running_loop().call_later(self._seconds, self._expire, protocol)

    @web.middleware
    async def heard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Stop the clock: a request is here."""
        timer = self._waiting.pop(request.protocol, None)
        if timer is not None:
            timer.cancel()
        return await handler(request)

    def _expire(self, protocol: web.RequestHandler) -> None:
        del self._waiting[protocol]
        protocol.force_close()


@asynccontextmanager
async def serve(
    config: Config, link: Link, head_seconds: float = HEAD_SECONDS, link_seconds: float = LINK_SECONDS
) -> AsyncIterator[int]:
    """Run the bridge while the context lasts; gives the port it listens on.

    head_seconds: see HEAD_SECONDS. link_seconds: how long to wait for the gateway before the port is given. The link
    is run but not made or closed here. Raises OSError when none of the ports is free, CertificateError.
    """
    codecs = {level: Codec(level) for level in (1, 2)}
    channels = Channels(link, codecs.values())
    sockets = Sockets(link, channels, codecs[2], config.max_connections)
    metrics = Metrics(lambda: len(sockets), lambda: channels.received, lambda: channels.sent)
    routes = Routes(link, Guard(config.hosts, config.origins), metrics, time.monotonic)
    timer = HeadTimer(head_seconds)
    app = web.Application(middlewares=[timer.heard, routes.guarded])
    app.add_routes([web.get("/gateway", sockets.handle), *routes.table()])
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=IDLE_SECONDS, shutdown_timeout=STOP_SECONDS)
    await runner.setup()
    running = asyncio.gather(link.run(channels), sockets.ping_all())
    try:
        server = await _listen(config, runner, timer)
        # The first client should find a gateway; but a bridge without one serves too, and says so.
        with suppress(TimeoutError):
            async with asyncio.timeout(link_seconds):
                await link.opened()
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            await sockets.close_all(closing.RESTART)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await runner.cleanup()


async def _listen(config: Config, runner: web.AppRunner, timer: HeadTimer) -> asyncio.Server:
    tls = None
    if config.certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            tls.load_cert_chain(config.certificate, config.private_key)
        except OSError as error:
            names = f"the certificate {config.certificate} with the key {config.private_key}"
            raise CertificateError(f"{names} cannot be used: {error.strerror or error}") from error

    def connection() -> asyncio.BaseProtocol:
        assert runner.server is not None
        protocol = runner.server()
        timer.watch(protocol)
        return protocol

    loop = asyncio.get_running_loop()
    for port in config.ports:
        try:
            return await loop.create_server(connection, config.host, port, ssl=tls, backlog=1024)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port == config.ports[-1]:
                raise
            LOG.warning("port %s is taken, trying the next", port)
    raise AssertionError("there is always a port to try")
