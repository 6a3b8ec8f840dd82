"""How a connection to a provider is opened: addresses tried side by side, TLS, and the proxy of the environment.

Called by transport. The addresses of a name are raced by aiohappyeyeballs, so that a dead IPv6 route costs a quarter
of a second and not the whole wait.
"""

import asyncio
import socket
import ssl
from base64 import b64encode
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from threading import Thread
from typing import Any
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

from aiohappyeyeballs import start_connection
from yarl import URL

from gateway.providers.connection import Connection, NotSentError

CONNECT_SECONDS = 10.0
NEXT_ADDRESS_SECONDS = 0.25
LONGEST_ANSWER_BYTES = 16 * 1024

_Addresses = list[tuple[Any, ...]]


class Dialer:
    """Opens connections to the server of `url`, an http or https URL."""

    def __init__(self, url: URL) -> None:
        if url.scheme not in ("http", "https") or not url.raw_host or not url.port:
            raise NotSentError
        self._url = url
        self._proxy = proxy_for(url)
        self._tls: ssl.SSLContext | None = None
        self._lookup: asyncio.Future[_Addresses] | None = None

    @property
    def asks_proxy(self) -> bool:
        """Whether requests go to a proxy, which needs the whole address in each."""
        return self._proxy is not None and self._url.scheme == "http"

    @property
    def proxy_authorization(self) -> str:
        """Credentials for the proxy; empty where it needs none."""
        if self._proxy is None or self._proxy.raw_user is None:
            return ""
        user, password = (unquote(part or "") for part in (self._proxy.raw_user, self._proxy.raw_password))
        return "Basic " + b64encode(f"{user}:{password}".encode()).decode()

    async def dial(self) -> Connection:
        """An open connection. Raises NotSentError."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await (self._direct(self._url, Connection()) if self._proxy is None else self._through_proxy())
        except (OSError, TimeoutError, ValueError):
            raise NotSentError from None

    async def _direct(self, url: URL, protocol: Connection) -> Connection:
        await self._open(url, protocol)
        return protocol

    async def _through_proxy(self) -> Connection:
        assert self._proxy is not None
        if self._proxy.scheme not in ("http", "https") or not self._proxy.raw_host:
            raise ValueError
        if self.asks_proxy:
            return await self._direct(self._proxy, Connection())
        tunnel = _Tunnel()
        transport = await self._open(self._proxy, tunnel)
        host = self._url.host_subcomponent
        lines = [f"CONNECT {host}:{self._url.port} HTTP/1.1", f"Host: {host}:{self._url.port}"]
        if self.proxy_authorization:
            lines.append(f"Proxy-Authorization: {self.proxy_authorization}")
        try:
            transport.write("\r\n".join([*lines, "", ""]).encode())
            await tunnel.accepted
        except BaseException:
            transport.abort()
            raise
        connection = Connection()
        await self._secure(transport, connection, self._url)
        return connection

    async def _addresses(self, host: str, port: int) -> _Addresses:
        """The addresses of a name; whoever asks while it is looked up gets the same answer.

        Not in a thread of the event loop: those are waited for at the end of the process, and a silent resolver takes
        half a minute for each.
        """
        with suppress(socket.gaierror):
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        if self._lookup is None or self._lookup.done():
            loop = asyncio.get_running_loop()
            self._lookup = loop.create_future()
            Thread(target=_look_up, args=(host, port, loop, self._lookup), name="resolver", daemon=True).start()
        return await asyncio.shield(self._lookup)

    async def _open(self, url: URL, protocol: asyncio.Protocol) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        assert url.raw_host is not None
        assert url.port is not None
        found = await self._addresses(url.raw_host, url.port)
        connected = await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1)
        first = asyncio.Protocol() if url.scheme == "https" else protocol
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport, _ = await loop.create_connection(lambda: first, sock=connected)
        except BaseException:
            connected.close()
            raise
        return transport if first is protocol else await self._secure(transport, protocol, url)

    async def _secure(self, transport: asyncio.Transport, protocol: asyncio.Protocol, url: URL) -> asyncio.Transport:
        """TLS with the server of `url` over an open connection, which is closed if that fails.

        Not left to create_connection: asyncio's leaves the socket open when it is cancelled as the handshake ends.
        """
        try:
            context = await self._context()
            if transport.is_closing():
                # The handshake would never end.
                raise ConnectionResetError
            secured = await asyncio.get_running_loop().start_tls(
                transport, protocol, context, server_hostname=url.raw_host
            )
            if secured is None:  # it was closed meanwhile
                raise ConnectionResetError
        except BaseException:
            transport.abort()
            raise
        protocol.connection_made(secured)
        return secured

    async def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            # Reading the certificates takes a while.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        return self._tls


class _Tunnel(asyncio.Protocol):
    """Waits for a proxy's answer to CONNECT."""

    def __init__(self) -> None:
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard = b""

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if self.accepted.done():
            return
        if b"\r\n\r\n" in self._heard:
            version, _, rest = self._heard.partition(b" ")
            if version.startswith(b"HTTP/1.") and rest[:1] == b"2":
                self.accepted.set_result(None)
            else:
                self.accepted.set_exception(NotSentError())
        elif len(self._heard) > LONGEST_ANSWER_BYTES:
            self.accepted.set_exception(NotSentError())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(NotSentError())


def proxy_for(url: URL) -> URL | None:
    """The proxy that the environment names for the address; without a scheme it is an http one, as for curl. Nobody
    means one to reach their own machine."""
    host = url.host
    if host is None or _is_here(host) or proxy_bypass(host):
        return None
    named = getproxies().get(url.scheme)
    if not named:
        return None
    return URL(named if "://" in named else f"http://{named}")


def _is_here(host: str) -> bool:
    """Whether it is loopback, in any spelling: a proxy would take it for its own machine."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        # Connecting takes 127.1 and 2130706433 for addresses too.
        return IPv4Address(socket.inet_aton(name)).is_loopback
    except OSError:
        pass
    try:
        address = IPv6Address(name)
    except ValueError:
        return False
    return (address.ipv4_mapped or address).is_loopback


def _look_up(host: str, port: int, loop: asyncio.AbstractEventLoop, found: "asyncio.Future[_Addresses]") -> None:
    """Runs in a thread."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        told = partial(_tell, found, error)
    else:
        told = partial(_tell, found, addresses)
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(told)


def _tell(found: "asyncio.Future[_Addresses]", answer: _Addresses | Exception) -> None:
    if isinstance(answer, Exception):
        found.set_exception(answer)
        found.exception()  # perhaps nobody waits any more
    else:
        found.set_result(answer)
