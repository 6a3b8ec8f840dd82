"""gRPC handlers for callers that use the services directly. Built from the method table; each streams what its feed
gives."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from agentspace.v1 import error_pb2
from gateway.domain import turn_event
from gateway.domain.access import Credentials, Principal
from gateway.domain.error import GatewayError, invalid
from gateway.rpc.methods import Calls, Method, members_by_type
from gateway.rpc.status import rich_status

TAKE_CHARACTERS = 64 * 1024

T = TypeVar("T", bound=Message)
Context = grpc.aio.ServicerContext[Any, Any]


def bearer_token(context: Context) -> str:
    """The token of the call's `authorization` metadata; empty when there is none."""
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            scheme, _, token = str(value).partition(" ")
            return token.strip() if scheme.lower() == "bearer" else "?"
    return ""


async def refuse(context: Context, error: error_pb2.Error) -> None:
    """End the call with the error's status."""
    await context.abort_with_status(rpc_status.to_status(rich_status(error)))


def parsed(kind: type[T], data: bytes) -> T:
    """The request. Raises INVALID_MESSAGE; gRPC itself would answer UNKNOWN and log a traceback."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise invalid("request", f"a well-formed {kind.DESCRIPTOR.name}") from None


def handlers(
    methods: list[Method], calls: Calls, credentials: Credentials
) -> "dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]":
    """By service and method name."""
    table: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for method in methods:
        handler: grpc.RpcMethodHandler[Any, Any]
        if method.stream is not None:
            handler = grpc.unary_stream_rpc_method_handler(
                _stream(method, calls, credentials), None, method.response.SerializeToString
            )
        else:
            handler = grpc.unary_unary_rpc_method_handler(
                _unary(method, calls, credentials), None, method.response.SerializeToString
            )
        table.setdefault(method.service, {})[method.name] = handler
    return table


def _unary(method: Method, calls: Calls, credentials: Credentials) -> Callable[[bytes, Context], Any]:
    async def handle(data: bytes, context: Context) -> Message | None:
        try:
            who = caller(context, credentials)
            call = calls.unary(method, parsed(method.request, data), who)
            return await (call if method.safe else calls.owned(call))
        except GatewayError as error:
            await refuse(context, turn_event.error_message(error))
            return None

    return handle


def _stream(method: Method, calls: Calls, credentials: Credentials) -> Callable[[bytes, Context], Any]:
    member = members_by_type(method.response, "event")
    response = method.response

    async def handle(data: bytes, context: Context) -> None:
        ready = asyncio.Event()
        try:
            who = caller(context, credentials)
            feed = await calls.owned(calls.stream(method, parsed(method.request, data), who, lambda _: ready.set()))
        except GatewayError as error:
            await refuse(context, turn_event.error_message(error))
            return
        try:
            while True:
                ready.clear()
                for item in feed.take(TAKE_CHARACTERS):
                    await context.write(response(**{member[type(item)]: item}))
                if feed.done:
                    break
                await ready.wait()
        finally:
            feed.close()
        if feed.failure is not None:
            await refuse(context, feed.failure)

    return handle


def caller(context: Context, credentials: Credentials) -> Principal:
    """Who calls. Raises UNAUTHENTICATED."""
    return credentials.identify(bearer_token(context), vouched=is_vouched(context))


def is_vouched(context: Context) -> bool:
    """Whether the peer is at the Unix socket, which only its owner can open: a bridge, which guards its own door."""
    return context.peer().startswith("unix:")
