"""The methods of all services, read from the contract's descriptors: who may call each, which frame it is, and the
function that answers it. Built once by app; used by direct (gRPC calls) and connect (frames), so that both reach
the same code.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message

from agentspace.v1 import (
    annotations_pb2,
    audit_service_pb2,
    chat_service_pb2,
    context_service_pb2,
    error_pb2,
    gateway_service_pb2,
    key_service_pb2,
    session_service_pb2,
    usage_service_pb2,
)
from gateway.domain.access import Principal
from gateway.domain.error import GatewayError
from gateway.usecases.live_sessions import Wake

_FILES = (
    audit_service_pb2,
    chat_service_pb2,
    context_service_pb2,
    gateway_service_pb2,
    key_service_pb2,
    session_service_pb2,
    usage_service_pb2,
)

_logger = logging.getLogger(__name__)

T = TypeVar("T")


class Feed(Protocol):
    """What a streaming method gives: see usecases.watch_session.Feed."""

    done: bool
    failure: error_pb2.Error | None
    after_seq: int
    place: Sequence[Any] | None

    def take(self, limit: int) -> Sequence[Any]:
        """What is new."""
        ...

    def close(self) -> None:
        """The reader is gone."""
        ...


@dataclass(frozen=True, slots=True)
class Method:
    """One method. `unary` or `stream` answers it; a `safe` one changes nothing, so it may end with its caller."""

    service: str
    name: str
    frame: str
    scope: str
    safe: bool
    request: type[Message]
    response: type[Message]
    unary: Callable[[Any, Principal], Awaitable[Message]] | None
    stream: Callable[[Any, Principal, Wake], Awaitable[Feed]] | None

    @property
    def path(self) -> str:
        """As gRPC names it: `/agentspace.v1.Service/Method`."""
        return f"/{self.service}/{self.name}"


def service_descriptors() -> list[ServiceDescriptor]:
    """All services of the contract."""
    return [service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()]


def methods(services: Mapping[str, object]) -> list[Method]:
    """The methods of `services`, which maps a service's short name to the object whose methods answer it: for
    `CreateSession`, `create_session`. Connect is not among them: it carries the others."""
    return [
        _method(descriptor, method, getattr(services[descriptor.name], _snake(method.name)))
        for descriptor in service_descriptors()
        for method in descriptor.methods
        if not method.client_streaming
    ]


def _method(service: ServiceDescriptor, method: MethodDescriptor, answer: Callable[..., Any]) -> Method:
    options = method.GetOptions().Extensions[annotations_pb2.method]
    return Method(
        service.full_name,
        method.name,
        options.frame,
        options.scope,
        method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS,
        _class(method.input_type),
        _class(method.output_type),
        None if method.server_streaming else answer,
        answer if method.server_streaming else None,
    )


def members_by_type(message: type[Message], oneof: str) -> dict[type[Message], str]:
    """For a oneof whose members have different types: the member's name by the class of its value."""
    fields = message.DESCRIPTOR.oneofs_by_name[oneof].fields
    return {_class(field.message_type): field.name for field in fields}


class Calls:
    """Makes calls: checks the scope, runs the method, and turns faults into GatewayError.

    A method may be between a commit and what must follow it, so it must not be cancelled because its caller goes away:
    `unary` and `stream` are for tasks that the application owns, `owned` makes one of them for any other caller.
    """

    def __init__(
        self,
        denied: Callable[[Principal, Method], Awaitable[None]],
        observe: Callable[[Method, str], None],
        spawn: Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"],
    ) -> None:
        self._denied = denied
        self._observe = observe
        self._spawn = spawn

    async def unary(self, method: Method, request: Message, caller: Principal) -> Message:
        """The response. Raises GatewayError."""
        assert method.unary is not None
        response: Message = await self._call(method, caller, method.unary(request, caller))
        return response

    async def stream(self, method: Method, request: Message, caller: Principal, wake: Wake) -> Feed:
        """The feed, which the caller must close. Raises GatewayError."""
        assert method.stream is not None
        feed: Feed = await self._call(method, caller, method.stream(request, caller, wake))
        return feed

    async def owned(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for a call that goes on when the waiting is cancelled; a feed nobody waits for any more is closed."""
        task = self._spawn(call)
        try:
            result: T = await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_close_result)
            raise
        return result

    async def _call(self, method: Method, caller: Principal, answer: Awaitable[Any]) -> Any:
        code = "OK"
        try:
            try:
                caller.require(method.scope)
            except GatewayError:
                if asyncio.iscoroutine(answer):
                    answer.close()
                await self._denied(caller, method)
                raise
            return await answer
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except GatewayError as error:
            code = error_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
            raise
        except Exception:
            code = "INTERNAL"
            _logger.exception("%s failed", method.path)
            raise GatewayError(error_pb2.ERROR_REASON_INTERNAL, "the gateway failed; its log says why") from None
        finally:
            self._observe(method, code)


def _close_result(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled() and task.exception() is None and not isinstance(result := task.result(), Message):
        result.close()


def _class(descriptor: Any) -> type[Message]:
    return message_factory.GetMessageClass(descriptor)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
