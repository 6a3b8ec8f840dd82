"""How the SDK's requests reach the network: aiohttp under the SDK's httpx2 client. Made by anthropic, off the event
loop, as both libraries take long to import.

The SDK brings such a transport too; this one also hands out aiohttp's own reader of the body, under CONTENT in the
response's extensions. Reading events from it costs a third less per delta than through the layers above.
"""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx2

CONTENT = "content"
CONNECTIONS = 1000
# Shorter than any usual server keeps an idle connection, so that a request is never written to one being closed: that
# could not be told from a request that was executed, and would have to fail.
KEEP_IDLE_SECONDS = 3.0


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """One pool of connections. `use_proxies`: those that the environment names. Redirects are not followed."""

    def __init__(self, *, use_proxies: bool) -> None:
        self._use_proxies = use_proxies
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request. Raises ConnectError or ConnectTimeout where it surely was not sent, else ReadError or
        ReadTimeout."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self._use_proxies,
            )
        limits: dict[str, Any] = request.extensions.get("timeout", {})
        try:
            response = await self._session.request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=await request.aread() or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(sock_connect=limits.get("connect"), sock_read=limits.get("read")),
            )
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise httpx2.ConnectError(type(error).__name__) from None
        except aiohttp.ConnectionTimeoutError as error:
            raise httpx2.ConnectTimeout(type(error).__name__) from None
        except TimeoutError as error:
            raise httpx2.ReadTimeout(type(error).__name__) from None
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.ReadError(type(error).__name__) from None
        return httpx2.Response(
            response.status,
            # aiohttp has decoded the body.
            headers=[(name, value) for name, value in response.raw_headers if name.lower() != b"content-encoding"],
            stream=_Body(response),
            extensions={"http_version": b"HTTP/1.1", CONTENT: response.content},
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while piece := await self._response.content.readany():
                yield piece
        except TimeoutError as error:
            raise httpx2.ReadTimeout(type(error).__name__) from None
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.ReadError(type(error).__name__) from None

    async def aclose(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            # Not to be used again, and the provider is to see it now.
            self._response.close()
