"""One gRPC call at the Unix socket: its messages, its deadline and its end, as gRPC's PROTOCOL-HTTP2 document has them.

Made by local_server for each stream of http2_server. To the handlers, which grpcio's server runs as well, it is their
context. No compression: it is not offered.
"""

import asyncio
import logging
import re
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn
from urllib.parse import quote

import grpc

from gateway.rpc.http2_server import Connection, GoneError, Headers

PREFIX_BYTES = 5
"""Before each message: whether it is compressed, and its length."""
HEAD = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-accept-encoding", "identity")]

_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")

_logger = logging.getLogger(__name__)


class _EndError(Exception):
    """The call ends with this status, which is not OK."""

    def __init__(self, code: grpc.StatusCode, details: str, metadata: Headers = ()) -> None:
        super().__init__(code)
        self.code = code
        self.details = details
        self.metadata = metadata


class Call:
    """A call whose headers have come; it takes messages of up to `largest` bytes."""

    def __init__(self, connection: Connection, number: int, headers: Headers, largest: int) -> None:
        self._connection = connection
        self._number = number
        self._headers = headers
        self._largest = largest
        self._part = bytearray()
        self._messages: deque[bytes] = deque()
        self._refusal: tuple[grpc.StatusCode, str] | None = None
        self._heard_all = False
        self._came = asyncio.Event()
        self._answered = False
        self._parse: Callable[[bytes], Any] = bytes
        self._serialize: Callable[[Any], bytes] = bytes
        self._task: asyncio.Task[None] | None = None

    def start(self, handler: Any) -> "asyncio.Task[None]":
        """Begin to answer with a handler as grpcio has them; None: there is no such method."""
        self._task = asyncio.get_running_loop().create_task(self._serve(handler))
        return self._task

    # --- the context of the handlers --------------------------------------------------------------------------------

    def peer(self) -> str:
        """As gRPC names who calls over a Unix socket."""
        return "unix:"

    def invocation_metadata(self) -> Headers:
        """What the caller sent along."""
        return self._headers

    async def write(self, message: Any) -> None:
        """Send a message. Returns when there is room for the next one."""
        data = self._serialize(message)
        if not self._answered:
            self._connection.send_headers(self._number, HEAD)
            self._answered = True
        await self._connection.send(self._number, b"\0" + len(data).to_bytes(4) + data)

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        """End the call with a status."""
        raise _EndError(code, details)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status that has metadata."""
        metadata = [(name, _text(value)) for name, value in status.trailing_metadata or ()]
        raise _EndError(status.code, status.details, metadata)

    def __aiter__(self) -> "Call":
        """A handler that takes a stream of requests reads them from here."""
        return self

    async def __anext__(self) -> Any:
        """The next one."""
        if (message := await self._next()) is None:
            raise StopAsyncIteration
        return message

    # --- called by the connection -----------------------------------------------------------------------------------

    def on_data(self, data: bytes) -> None:
        """Keep the messages that are complete. There is room for more while none of them waits to be read."""
        part = self._part
        part += data
        while len(part) >= PREFIX_BYTES and self._refusal is None:
            stop = PREFIX_BYTES + int.from_bytes(part[1:PREFIX_BYTES])
            if part[0]:
                self._refusal = grpc.StatusCode.UNIMPLEMENTED, "messages cannot be compressed"
            elif stop - PREFIX_BYTES > self._largest:
                what = f"a message of {stop - PREFIX_BYTES} bytes, more than {self._largest}"
                self._refusal = grpc.StatusCode.RESOURCE_EXHAUSTED, what
            elif stop > len(part):
                break
            else:
                self._messages.append(bytes(part[PREFIX_BYTES:stop]))
                del part[:stop]
        if not self._messages and self._refusal is None:
            self._connection.taken(self._number)
        self._came.set()

    def on_end(self) -> None:
        """The caller sends no more."""
        self._heard_all = True
        self._came.set()

    def on_lost(self) -> None:
        """The caller is gone."""
        if self._task is not None:
            self._task.cancel()

    # ----------------------------------------------------------------------------------------------------------------

    async def _serve(self, handler: Any) -> None:
        code, details = grpc.StatusCode.OK, ""
        metadata: Headers = ()
        deadline = asyncio.timeout(_seconds(self._headers))
        try:
            async with deadline:
                await self._answer(handler)
        except _EndError as end:
            code, details, metadata = end.code, end.details, end.metadata
        except GoneError:
            return
        except asyncio.CancelledError:
            # It need not be the caller who gave up. Raised again it would stay with the task, and with it its traceback
            # and all that this call holds, in a circle.
            self._connection.reset(self._number)
            return
        except Exception:
            if deadline.expired():
                code, details = grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline is over"
            else:
                _logger.exception("a call failed")
                code, details = grpc.StatusCode.UNKNOWN, "the call failed inside the gateway"
        self._end(code, details, metadata)

    async def _answer(self, handler: Any) -> None:
        if handler is None:
            raise _EndError(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")
        self._serialize = handler.response_serializer or bytes
        self._parse = handler.request_deserializer or bytes
        request: Any = self
        if not handler.request_streaming:
            # As grpcio does, which reads no more than the first.
            request = await self._next()
            if request is None:
                raise _EndError(grpc.StatusCode.INTERNAL, "no request came")
        if not handler.response_streaming:
            await self.write(await handler.unary_unary(request, self))
            return
        answers = (handler.stream_stream or handler.unary_stream)(request, self)
        if isinstance(answers, AsyncIterator):
            async for answer in answers:
                await self.write(answer)
        else:
            await answers

    async def _next(self) -> Any:
        """The caller's next message; None when there is no more."""
        while not self._messages:
            if self._refusal is not None:
                raise _EndError(*self._refusal)
            self._connection.taken(self._number)
            if self._heard_all:
                return None
            self._came.clear()
            await self._came.wait()
        return self._parse(self._messages.popleft())

    def _end(self, code: grpc.StatusCode, details: str, metadata: Headers) -> None:
        trailers = [("grpc-status", str(code.value[0])), ("grpc-message", quote(details, safe=_PRINTABLE)), *metadata]
        try:
            # Without a message before them they are the headers as well.
            whole = trailers if self._answered else [*HEAD, *trailers]
            self._connection.end(self._number, whole, heard_all=self._heard_all)
        except GoneError:
            pass


def _text(value: str | bytes) -> str:
    """Metadata that is binary travels as base64."""
    return b64encode(value).rstrip(b"=").decode() if isinstance(value, bytes) else value


def _seconds(headers: Headers) -> float | None:
    """How long the caller waits; None: as long as it takes."""
    for name, value in headers:
        if name == "grpc-timeout" and (found := _TIMEOUT.fullmatch(value)):
            return int(found[1]) * _UNIT_SECONDS[found[2]]
    return None
