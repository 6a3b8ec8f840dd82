"""gRPC as a client: calls on an HTTP/2 connection, as gRPC's PROTOCOL-HTTP2 document has them.

Used by calls.py, which knows the methods; http2_connection.py carries the bytes. Messages go and come encoded. No
compression: the server is not offered any.
"""

import asyncio
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from typing import cast
from urllib.parse import unquote

from google.protobuf.message import DecodeError
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status
from hpack import NeverIndexedHeaderTuple

from bridge.http2_connection import Connection, Headers, LostError

PREFIX_BYTES = 5
"""Before each message: whether it is compressed, and its length."""
MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest message that may come."""


class CallError(Exception):
    """A call ended otherwise than in order."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"{code_name(status)}: {status.message}")
        self.status = status


class Call:
    """A call of the method at `path` ("/package.Service/Method"). Every message that comes is given to `on_message`.

    on_sent: called when `send` has said that there is no room and there is again. On a connection that is lost the call
    ends at once.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        metadata: Headers,
        on_message: Callable[[bytes], None],
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        self.ended: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        """How it ended. Fails with what on_message raises."""
        self.on_sent = on_sent
        self._connection = connection
        self._on_message = on_message
        self._part = bytearray()
        self._last: dict[str, str] = {}
        head = [("te", "trailers"), ("content-type", "application/grpc"), ("grpc-accept-encoding", "identity")]
        try:
            self._number = connection.open(path, [*head, *metadata], self)
        except LostError:
            self._number = 0
            self.on_lost(None)

    def send(self, message: bytes, *, end: bool = False) -> bool:
        """Send a message; with `end` it is the last. False: there is no room for more before on_sent is called."""
        return self._connection.send(self._number, b"\0" + len(message).to_bytes(4) + message, end=end)

    def cancel(self) -> None:
        """Give it up; no message comes any more."""
        self._connection.cancel(self._number)
        self._finish(Status(code=Code.CANCELLED))

    # --- called by the connection -----------------------------------------------------------------------------------

    def on_headers(self, headers: Headers) -> None:
        """Keep them until the end."""
        self._last.update(headers)

    def on_data(self, data: bytes) -> None:
        """Give the messages that are complete."""
        part = self._part
        if not part and len(data) - PREFIX_BYTES == int.from_bytes(data[1:PREFIX_BYTES]) and data[0] == 0:
            # Nearly always: one message in one frame.
            self._give(data[PREFIX_BYTES:])
            return
        part += data
        while len(part) >= PREFIX_BYTES:
            size = int.from_bytes(part[1:PREFIX_BYTES])
            if part[0] or size > MESSAGE_BYTES:
                self._connection.cancel(self._number)
                self._finish(Status(code=Code.RESOURCE_EXHAUSTED, message="the message is compressed or too large"))
                return
            if len(part) < PREFIX_BYTES + size:
                return
            message = bytes(part[PREFIX_BYTES : PREFIX_BYTES + size])
            del part[: PREFIX_BYTES + size]
            self._give(message)

    def on_end(self) -> None:
        """The trailers are here."""
        self._finish(_status(self._last))

    def on_lost(self, code: int | None) -> None:
        """There will be no trailers."""
        if code is None:
            self._finish(Status(code=Code.UNAVAILABLE, message="the connection is lost"))
        else:
            self._finish(Status(code=OF_RESETS.get(code, Code.INTERNAL), message=f"reset with HTTP/2 error {code}"))

    def _give(self, message: bytes) -> None:
        if self.ended.done():
            return
        try:
            self._on_message(message)
        except Exception as error:  # noqa: BLE001
            # Whoever waits for the call decides; the connection's other calls go on.
            self._connection.cancel(self._number)
            self.ended.set_exception(error)

    def _finish(self, status: Status) -> None:
        if not self.ended.done():
            self.ended.set_result(status)


async def ask(connection: Connection, path: str, message: bytes, token: str, seconds: float) -> bytes:
    """Call a method that takes and gives one message, as the bearer of a token unless that is empty. Raises CallError.

    seconds: when the server is to give up. Who cannot rely on it bounds the wait; to cancel it cancels the call.
    """
    metadata: list[tuple[str, str]] = [("grpc-timeout", f"{round(seconds * 1000)}m")]
    if token:
        # Not into the tables that compress headers: they outlive the call.
        secret = NeverIndexedHeaderTuple("authorization", f"Bearer {token}")
        metadata.append(cast(tuple[str, str], secret))
    answers: list[bytes] = []
    call = Call(connection, path, metadata, answers.append)
    call.send(message, end=True)
    try:
        status = await call.ended
    finally:
        call.cancel()
    if status.code == Code.OK and len(answers) == 1:
        return answers[0]
    raise CallError(status if status.code else Status(code=Code.INTERNAL, message="there was no single answer"))


def code_name(status: Status) -> str:
    """The name of a status' code, "UNAVAILABLE" for instance; its number if it has none."""
    return Code.Name(status.code) if status.code in Code.values() else str(status.code)


def _status(trailers: dict[str, str]) -> Status:
    if "grpc-status" not in trailers:
        # It was no gRPC server that answered.
        return Status(code=Code.UNAVAILABLE, message=f"answered with HTTP status {trailers.get(':status')}")
    number = trailers["grpc-status"]
    code = KNOWN.get(number, Code.UNKNOWN)
    with suppress(KeyError, ValueError, DecodeError):
        packed = trailers["grpc-status-details-bin"]
        detailed = Status.FromString(b64decode(packed + "=" * (-len(packed) % 4)))
        if detailed.code == code:
            return detailed
    return Status(code=code, message=unquote(trailers.get("grpc-message", "")))


KNOWN = {str(code): code for code in Code.values()}
"""Codes by what stands in the trailers."""
OF_RESETS = {7: Code.UNAVAILABLE, 8: Code.CANCELLED, 11: Code.RESOURCE_EXHAUSTED}
"""What a reset with an error code of HTTP/2 means for the call; all others are INTERNAL."""
