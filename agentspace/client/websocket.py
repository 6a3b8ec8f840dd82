"""One connection to the JSON door, level 2. Called by conversation; calls the library websockets, and never grpc.

Frames are JSON objects as the contract declares them: {"type", "id", ...} out, {"type", "requestId", ...} in.
"""

import asyncio
import itertools
import json
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any, Self
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from agentspace.client import errors
from agentspace.client.credentials import authorization
from agentspace.client.discovery import base_url
from agentspace.client.errors import AgentSpaceError, unreachable

Frame = dict[str, Any]

PROTOCOL = Subprotocol("agentspace.v2")
HELLO_SECONDS = 10.0
LARGEST_FRAME = 64 * 1024 * 1024
WAITING_FRAMES = 1024
"""How many frames of one request may wait for their reader before the connection stops reading."""
DENIED_CODES = frozenset({1008, 3000, 3003, 4401, 4403})
"""Close codes that say no to the credentials."""
FINAL_CODES = frozenset({1002, 1003, 1007, 1009})
"""Close codes that say no to what was sent: sent again it would be refused again."""


class Socket:
    """An open connection. `hello` is its first frame: protocol, serverVersion, limits, features, principal, scopes."""

    def __init__(self, connection: ClientConnection) -> None:
        self.hello: Frame = {}
        self._connection = connection
        self._ids = itertools.count(1)
        self._waiting: dict[str, asyncio.Queue[Frame | AgentSpaceError]] = {}
        self._readers: Counter[str] = Counter()
        """How many follow a session, by its id."""
        self._open = True
        self._end: AgentSpaceError = unreachable("the connection is closed")
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, token: str | None = None) -> Self:
        """Connect to a server's http(s) or ws(s) URL and read its hello. Raises UnreachableError or DeniedError."""
        value = authorization(token)
        try:
            connection = await connect(
                gateway_url(url),
                subprotocols=[PROTOCOL],
                additional_headers={"Authorization": value} if value else None,
                compression=None,
                proxy=None,
                max_size=LARGEST_FRAME,
                open_timeout=HELLO_SECONDS,
                close_timeout=2,
            )
        except InvalidStatus as error:
            code = error.response.status_code
            if code in (401, 403):
                raise errors.build("UNAUTHENTICATED", f"{url} refused the connection ({code})") from error
            raise unreachable(f"{url} answered {code} instead of opening a WebSocket") from error
        except ssl.SSLCertVerificationError as error:
            raise errors.untrusted(url, error.verify_message) from error
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as error:
            raise unreachable(f"no server answers at {url}") from error
        socket = cls(connection)
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                first = json.loads(await connection.recv())
            if first.get("type") == "error":
                raise from_frame(first)
        except (TimeoutError, ConnectionClosed, ValueError) as error:
            await connection.close()
            raise _closed(error, url) from error
        except BaseException:
            # Of a caller that is cancelled, too: nobody else has it.
            await connection.close()
            raise
        socket.hello = first
        socket._reader = asyncio.create_task(socket._read(url))
        return socket

    @property
    def closed(self) -> bool:
        """No more frames come."""
        return not self._open

    async def request(self, type_: str, **fields: Any) -> Frame:
        """One frame, one answer. Raises the answer if it is an error."""
        async with aclosing(self.stream(type_, **fields)) as frames:
            return await anext(frames)

    async def stream(self, type_: str, **fields: Any) -> AsyncGenerator[Frame, None]:
        """One frame and what comes back for it. Raises errors of the request, but yields those of turns."""
        request_id = str(next(self._ids))
        queue: asyncio.Queue[Frame | AgentSpaceError] = asyncio.Queue(WAITING_FRAMES)
        self._waiting[request_id] = queue
        try:
            await self._send({"type": type_, "id": request_id, **fields})
            while True:
                if self.closed and queue.empty():
                    raise self._end
                frame = await queue.get()
                if isinstance(frame, AgentSpaceError):
                    raise frame
                if frame["type"] == "error" and not frame.get("turnId"):
                    raise from_frame(frame)
                yield frame
        finally:
            del self._waiting[request_id]
            if queue.full():
                # `_read` may wait for room in it: make some, or it waits for ever, and every other request with it.
                queue.get_nowait()

    async def watch(self, session_id: str, **place: int) -> AsyncGenerator[Frame, None]:
        """The frames of a session.watch. It ends at the server when the last who follows the session here has left."""
        # A session's key ends with its id.
        session = session_id.rsplit(":", 1)[-1]
        self._readers[session] += 1
        try:
            async with aclosing(self.stream("session.watch", sessionId=session_id, **place)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            self._readers[session] -= 1
            if not self._readers[session]:
                del self._readers[session]
                # It ends all of this connection's watches of the session, so not before. Nobody needs the answer; and
                # when the connection is gone, so are they.
                with suppress(AgentSpaceError):
                    await self._send({"type": "session.unwatch", "id": str(next(self._ids)), "sessionId": session})

    async def close(self) -> None:
        """Close the connection; turns go on."""
        await self._connection.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _send(self, frame: Frame) -> None:
        text = json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        largest = (self.hello.get("limits") or {}).get("maxFrameBytes")
        if largest and len(text) > largest:
            raise errors.build(
                "INVALID_MESSAGE",
                f"{frame['type']} would be a frame of {len(text)} bytes; the server takes at most {largest}",
                metadata={"limit": str(largest)},
            )
        try:
            await self._connection.send(text, text=True)
        except ConnectionClosed as error:
            raise _closed(error, "the server") from error

    async def _read(self, url: str) -> None:
        """Hand each frame to the request it answers, until the connection ends."""
        try:
            while True:
                frame = json.loads(await self._connection.recv())
                queue = self._waiting.get(frame.get("requestId", ""))
                if queue is not None:
                    await queue.put(frame)
        except (ConnectionClosed, ValueError) as error:
            self._end = _closed(error, url)
        finally:
            self._open = False
            for queue in self._waiting.values():
                if not queue.full():
                    queue.put_nowait(self._end)


def gateway_url(url: str) -> str:
    """The WebSocket address of a server: http://host:port -> ws://host:port/gateway. Raises ValueError as base_url."""
    parts = urlsplit(base_url(url))
    return parts._replace(scheme=parts.scheme.replace("http", "ws"), path=f"{parts.path}/gateway").geturl()


def from_frame(frame: Mapping[str, Any]) -> AgentSpaceError:
    """The exception of an error frame, or of the error in a turn."""
    wait = frame.get("retryAfterMs") or 0
    return errors.build(
        str(frame.get("code", "INTERNAL")),
        str(frame.get("message", "")),
        retryable=bool(frame.get("retryable")),
        retry_after=wait / 1000 or None,
        metadata=frame.get("metadata") or {},
        execution=str(frame.get("execution") or ""),
        session_id=str(frame.get("sessionId") or ""),
        turn_id=str(frame.get("turnId") or ""),
    )


def _closed(error: Exception, url: str) -> AgentSpaceError:
    if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code in DENIED_CODES:
        return errors.build("UNAUTHENTICATED", error.rcvd.reason or "the token was refused")
    if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code in FINAL_CODES:
        return errors.build("INVALID_MESSAGE", error.rcvd.reason or "the server cannot read what was sent")
    return unreachable(f"{url} closed the connection")
