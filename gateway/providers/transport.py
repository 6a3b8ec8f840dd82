"""How requests reach a server that speaks the Messages API: its address, the headers of every request and a pool of
connections. Used by anthropic; dial opens the connections, connection carries an exchange.
"""

import asyncio

from yarl import URL

from gateway.providers.connection import Connection, NotSentError, Receiver
from gateway.providers.dial import Dialer

API_VERSION = "2026-10-21"
CONNECTIONS = 1000
# Shorter than any usual server keeps an idle connection, so that a request is never written to one being closed: that
# could not be told from a request that was executed, and would have to fail.
KEEP_IDLE_SECONDS = 3.0


class Transport:
    """Requests to the server at `base_url`, which may have a path. `user_agent` is who we say we are."""

    def __init__(self, base_url: str, user_agent: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._user_agent = user_agent
        self._dialer: Dialer | None = None
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[Connection] = []
        self._sweep: asyncio.TimerHandle | None = None

    async def exchange(self, method: str, path: str, key: str, body: bytes | None, receiver: Receiver) -> None:
        """Send a request and hand the answer to `receiver`, until it is complete or the receiver has enough.

        `key` must be printable ASCII. Redirects are not followed: they would carry the conversation to somebody nobody
        chose. Nothing has a time limit but the opening of a connection. Raises NotSentError when the request was surely
        not sent, CutOffError, and what the receiver raises.
        """
        dialer = self._dialer or self._find()
        async with self._places:
            connection = self._kept() or await dialer.dial()
            try:
                await connection.ask(b"%s %s%s\r\n\r\n%s" % self._request(method, path, key, body), receiver)
            finally:
                if connection.usable:
                    self._keep(connection)

    async def close(self) -> None:
        """Close all idle connections; the others end with their callers."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    def _find(self) -> Dialer:
        """Read the address. Raises NotSentError."""
        try:
            url = URL(self._base_url)
            dialer = Dialer(url)
        except ValueError:
            raise NotSentError from None
        root = url.raw_path.rstrip("/")
        self._root = f"{url.origin()}{root}" if dialer.asks_proxy else root
        lines = [
            f" HTTP/1.1\r\nHost: {url.host_port_subcomponent}",
            "accept: application/json",
            # Compressed events would wait for one another.
            "accept-encoding: identity",
            f"anthropic-version: {API_VERSION}",
            f"user-agent: {self._user_agent}",
        ]
        if dialer.asks_proxy and dialer.proxy_authorization:
            lines.append(f"Proxy-Authorization: {dialer.proxy_authorization}")
        self._lines = "\r\n".join([*lines, "authorization: Bearer "])
        self._dialer = dialer
        return dialer

    def _request(self, method: str, path: str, key: str, body: bytes | None) -> tuple[bytes, bytes, bytes, bytes]:
        head = f"{self._lines}{key}"
        if body is not None:
            head += f"\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        return method.encode(), f"{self._root}{path}".encode(), head.encode(), body or b""

    def _kept(self) -> Connection | None:
        """The connection used last, if it can be used again."""
        oldest = asyncio.get_running_loop().time() - KEEP_IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since > oldest and connection.silent:
                return connection
            connection.abort()
        return None

    def _keep(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(KEEP_IDLE_SECONDS, self._drop_old)

    def _drop_old(self) -> None:
        """Close what was idle for long; the oldest stand first."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - KEEP_IDLE_SECONDS
        fresh = [c for c in self._idle if c.usable and c.idle_since > oldest]
        for connection in self._idle:
            if connection not in fresh:
                connection.abort()
        self._idle = fresh
        self._sweep = loop.call_later(KEEP_IDLE_SECONDS, self._drop_old) if fresh else None
