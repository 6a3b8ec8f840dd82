"""The gRPC server: all services from the method table, Connect, health, and reflection under both of its names.

Built by app. Stopping it in order is app's work too: health first, then the drain of turns, then the server. The
network is served by grpcio, a Unix socket by local_server; both run the same handlers.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from agentspace.v1 import gateway_service_pb2
from gateway.domain import turn_event
from gateway.domain.access import Credentials
from gateway.domain.error import GatewayError
from gateway.rpc import direct
from gateway.rpc.connect import Connection
from gateway.rpc.health import Health
from gateway.rpc.local_server import LocalServer
from gateway.rpc.methods import Calls, Method, service_descriptors
from gateway.rpc.pace import Pace
from gateway.rpc.packing import pack

BACKLOG_ANSWERS = 4096
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
MAX_REQUEST_BYTES = 4 * 1024 * 1024

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
)

Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


class GrpcServer:
    """All services at any number of addresses and Unix sockets."""

    def __init__(self, methods: list[Method], calls: Calls, credentials: Credentials, spawn: Spawn) -> None:
        self._methods = methods
        self._calls = calls
        self._credentials = credentials
        self._spawn = spawn
        self._connections: set[Connection] = set()
        logging.getLogger("grpc._cython.cygrpc").addFilter(make_light)
        self._server = grpc.aio.server(options=OPTIONS)
        self._local = LocalServer(MAX_REQUEST_BYTES)
        names = [service.full_name for service in service_descriptors()]
        self._health = Health([*names, ""])
        table = direct.handlers(methods, calls, credentials)
        table[gateway_service_pb2.DESCRIPTOR.services_by_name["GatewayService"].full_name]["Connect"] = (
            grpc.stream_stream_rpc_method_handler(self._connect, None, None)
        )
        # Not REFLECTION_V1: its file is not at hand, and clients describe every service that is listed.
        names += [HEALTH, reflection.SERVICE_NAME]
        servers: tuple[Any, ...] = self._server, self._local
        for server in servers:
            for service, handlers in table.items():
                server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            _add_reflection(server, names)

    def listen(self, address: str) -> int:
        """Add an address, `host:port`; returns the port. Raises RuntimeError when it is taken."""
        port: int = self._server.add_insecure_port(address)
        return port

    def listen_locally(self, path: Path) -> None:
        """Add a Unix socket, which only its owner can open. Raises RuntimeError when it cannot be made."""
        self._local.listen(path)

    async def start(self) -> None:
        """Serve."""
        await asyncio.gather(self._server.start(), self._local.start())
        self.set_serving(True)

    def set_serving(self, serving: bool) -> None:
        """What health says of every service."""
        self._health.set_serving(serving)

    async def stop(self, grace: float) -> None:
        """Tell the channels, then end all calls within `grace` seconds."""
        for connection in tuple(self._connections):
            connection.restart()
        await asyncio.gather(self._server.stop(grace), self._local.stop(grace))

    async def _connect(self, requests: Any, context: direct.Context) -> None:
        try:
            direct.caller(context, self._credentials)
        except GatewayError as error:
            await direct.refuse(context, turn_event.error_message(error))
        due, collected = asyncio.Event(), asyncio.Event()
        pace = Pace(due.set, asyncio.get_running_loop())
        connection = Connection(
            self._methods, self._calls, self._credentials, pace.hurry, self._spawn, vouched=direct.is_vouched(context)
        )
        self._connections.add(connection)

        async def read() -> None:
            async for data in requests:
                connection.receive(direct.parsed(gateway_service_pb2.ConnectRequest, data).channels)
                while connection.backlog > BACKLOG_ANSWERS:
                    collected.clear()
                    await collected.wait()

        reader = asyncio.ensure_future(read())
        reader.add_done_callback(lambda _: due.set())
        try:
            while not (reader.done() or (connection.ending and not connection.haste)):
                await due.wait()
                due.clear()
                pace.begin()
                batch = connection.collect()
                collected.set()
                if batch:
                    await context.write(pack(batch))
                pace.left()
        finally:
            reader.cancel()
            connection.close()
            self._connections.discard(connection)
            (failure,) = await asyncio.gather(reader, return_exceptions=True)
        if isinstance(failure, GatewayError):
            await direct.refuse(context, turn_event.error_message(failure))
        if isinstance(failure, Exception) and not isinstance(failure, grpc.aio.BaseError):
            raise failure


def make_light(record: logging.LogRecord) -> bool:
    """An answer did not reach its caller, who most often has gone: gRPC tells that as an error, with a traceback."""
    if record.exc_info and isinstance(record.exc_info[1], grpc.aio.InternalError):
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args, record.exc_info = "an answer did not reach its caller", (), None
    return True


class _Symbols:
    """The descriptor pool, which by itself finds no methods and fields; asked for one, it shows what the name is in."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802
        """The file in which a name is declared. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindFileContainingSymbol(symbol.rpartition(".")[0])


def _add_reflection(server: grpc.aio.Server, names: list[str]) -> None:
    """grpcio serves reflection under v1alpha only; v1 is the same protocol under another name."""
    servicer = reflection.aio.ReflectionServicer(names, pool=_Symbols())
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
            for name in (reflection.SERVICE_NAME, REFLECTION_V1)
        )
    )
