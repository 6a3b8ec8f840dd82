"""LocalServer: gRPC at a Unix socket, in the event loop. It runs the handlers that grpcio's server has for the network.

Used by server. docs/decisions/0012-grpc-at-the-unix-socket.md says why there are two.
"""

import asyncio
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc

from gateway.rpc.http2_server import Connection, Headers
from gateway.rpc.local_call import Call

BACKLOG = 128
"""How many connections may wait to be taken."""


class _Details(grpc.HandlerCallDetails):
    """By what grpcio finds a handler."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


class LocalServer:
    """Has the methods of grpcio's server that are used here. `largest`: the size of the largest request in bytes."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._doors: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._calls: set[asyncio.Task[None]] = set()

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Answer the methods that these have."""
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Nothing: generated code gives every handler in both ways, and the generic ones are enough."""

    def listen(self, path: Path) -> None:
        """Make a socket that only its owner can open. Who connects before `start` waits. Raises RuntimeError."""
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._doors.append(door)
        try:
            door.bind(str(path))
            # Nobody comes in before it listens.
            path.chmod(0o600)
            door.listen(BACKLOG)
        except OSError as error:
            raise RuntimeError(f"no socket can be made at {path}: {error.strerror or error}") from None

    async def start(self) -> None:
        """Serve."""
        loop = asyncio.get_running_loop()
        for door in self._doors:
            self._servers.append(await loop.create_unix_server(self._connected, sock=door, backlog=BACKLOG))

    async def stop(self, grace: float) -> None:
        """Take no more calls, and end those that are open within `grace` seconds."""
        for server in self._servers:
            server.close()
        for door in self._doors:
            door.close()
        for connection in self._connections:
            connection.leave()
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace)
        for connection in tuple(self._connections):
            connection.close()
        if self._calls:
            await asyncio.wait(self._calls)

    def _connected(self) -> Connection:
        connection = Connection(self._accept, self._connections.discard)
        self._connections.add(connection)
        return connection

    def _accept(self, connection: Connection, number: int, headers: Headers) -> Call:
        call = Call(connection, number, headers, self._largest)
        task = call.start(self._handler(dict(headers).get(":path", "")))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return call

    def _handler(self, path: str) -> Any:
        details = _Details(path)
        return next((found for handlers in self._handlers if (found := handlers.service(details)) is not None), None)
