"""How requests reach a server that speaks the Messages API: its address, the headers of every request and a pool of
connections. Used by anthropic.
"""

from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

API_VERSION = "2026-10-21"
CONNECTIONS = 1000
CONNECT_SECONDS = 10.0
# Shorter than any usual server keeps an idle connection, so that a request is never written to one being closed: that
# could not be told from a request that was executed, and would have to fail.
KEEP_IDLE_SECONDS = 3.0
NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.NonHttpUrlClientError,
    ValueError,
)
"""After one of these the request was surely not sent. A ValueError says that the address is none."""


class Transport:
    """Requests to the server at `base_url`, which may have a path. `user_agent` is who we say we are."""

    def __init__(self, base_url: str, user_agent: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self, method: str, path: str, key: str, body: bytes | None = None, seconds: float | None = None
    ) -> aiohttp.ClientResponse:
        """The answer as soon as its head is there. The caller closes it; one read to its end leaves its connection to
        the next request.

        `seconds` limits everything up to the end of the body. Without it only the connection has a limit. Raises one
        of NOT_SENT, else aiohttp.ClientError, OSError or TimeoutError.
        """
        session = self._session or self._open()
        headers = {"authorization": f"Bearer {key}"}
        if body is not None:
            headers["content-type"] = "application/json"
        return await session.request(
            method,
            self._base_url + path,
            headers=headers,
            data=body,
            # A redirect would carry the conversation to somebody nobody chose.
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            # aiohttp would ask the environment for each request, in a thread, which costs more than the request.
            proxy=_proxy(URL(self._base_url)),
            headers={
                "accept": "application/json",
                # Compressed events would wait for one another.
                "accept-encoding": "identity",
                "anthropic-version": API_VERSION,
                "user-agent": self._user_agent,
            },
        )
        return self._session


def _proxy(url: URL) -> str | None:
    """The proxy that the environment names for the address. Nobody means one to reach their own machine."""
    host = url.host
    if host is None or host in ("127.0.0.1", "localhost", "::1") or proxy_bypass(host):
        return None
    return getproxies().get(url.scheme)
