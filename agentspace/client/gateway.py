"""Gateway: the typed async client of the gRPC door. Used by programs; calls stream for chats and the generated stubs.

    async with Gateway() as gateway:
        async for event in gateway.chat("hello"):
            ...
        print(await gateway.chat("and now?", session_id=...).text())

Messages are the contract's (agentspace.v1). Every call raises errors.AgentSpaceError.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable
from types import TracebackType
from typing import Self, TypeVar

import grpc.aio

from agentspace.client import status
from agentspace.client.credentials import authorization
from agentspace.client.position import Position
from agentspace.client.stream import ChatEvent, Metadata, Streams, WatchEvent
from agentspace.v1 import chat_service_pb2 as chat_pb2
from agentspace.v1 import context_service_pb2 as context_pb2
from agentspace.v1 import key_service_pb2 as keys_pb2
from agentspace.v1 import message_pb2, session_pb2, turn_pb2
from agentspace.v1 import session_service_pb2 as sessions_pb2
from agentspace.v1 import usage_service_pb2 as usage_pb2
from agentspace.v1.chat_service_pb2_grpc import ChatServiceStub
from agentspace.v1.context_service_pb2_grpc import ContextServiceStub
from agentspace.v1.key_service_pb2_grpc import KeyServiceStub
from agentspace.v1.session_service_pb2_grpc import SessionServiceStub
from agentspace.v1.usage_service_pb2_grpc import UsageServiceStub

DEFAULT_TARGET = "127.0.0.1:3272"
DEFAULT_PATIENCE = 30.0
REJECT = chat_pb2.ON_BUSY_REJECT

# A restarted server is found again within this, not after gRPC's own ceiling of two minutes.
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)

Answered = TypeVar("Answered")


class Chat:
    """One message on its way. Iterate it once for its events, or await text()."""

    def __init__(self, events: AsyncIterator[ChatEvent]) -> None:
        self._events = events

    def __aiter__(self) -> AsyncIterator[ChatEvent]:
        """The events of the turn, each once and in order; see Gateway.chat."""
        return self._events

    async def text(self) -> str:
        """The whole answer's text, when it is complete. Raises the turn's error if it is not."""
        return "".join([event.delta async for event in self if isinstance(event, turn_pb2.TextDelta)])


class Gateway:
    """A connection to one gateway.

    target: "host:port" or "unix:/path". token: the bearer token; None: the rights of a local program.
    credentials: TLS for the channel; None: plain text, for loopback and Unix sockets. patience: how many seconds a
    stream tries to reach the server again before it raises UnreachableError. Raises DeniedError for a token that cannot
    be sent.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        patience: float = DEFAULT_PATIENCE,
    ) -> None:
        self._target = target
        self._credentials = credentials
        value = authorization(token)
        self._metadata: Metadata = (("authorization", value),) if value else ()
        self._patience = patience
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(self._target, options=CHANNEL_OPTIONS)
        else:
            channel = grpc.aio.secure_channel(self._target, self._credentials, options=CHANNEL_OPTIONS)
        self._channel = channel
        self._chat = ChatServiceStub(channel)
        self._sessions = SessionServiceStub(channel)
        self._context = ContextServiceStub(channel)
        self._usage = UsageServiceStub(channel)
        self._keys = KeyServiceStub(channel)
        self._streams = Streams(self._chat, self._sessions, self._metadata, self._patience)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.close()

    def chat(
        self,
        content: str,
        *,
        session_id: str | None = None,
        model: str | None = None,
        idempotency_key: str | None = None,
        on_busy: chat_pb2.OnBusy.ValueType = REJECT,
    ) -> Chat:
        """Send a message and follow its turn.

        Events: SessionCreated (if it opened one), MessageAccepted, TurnStarted, deltas, TurnEnded, and heartbeats in
        between. A turn without a complete answer raises its error after its last delta. Without a session id a new
        session is opened; without a key a fresh one is made, so that a send whose acknowledgement got lost is
        repeated without being executed twice.
        """
        request = chat_pb2.SendMessageRequest(
            session_id=session_id or "",
            content=content,
            model=model or "",
            idempotency_key=idempotency_key or secrets.token_urlsafe(24),
            on_busy=on_busy,
        )
        return Chat(self._streams.send(request))

    def watch(
        self, session_id: str, *, epoch: int | None = None, after_seq: int | None = None
    ) -> AsyncIterator[WatchEvent]:
        """Follow a session, over broken connections: everything after the position, or from a snapshot, then live."""
        return self._streams.watch(session_id, Position(epoch or 0, after_seq))

    async def create_session(
        self, *, model: str = "", title: str = "", system_prompt: str = "", agent_id: str = ""
    ) -> session_pb2.Session:
        """Open an empty session."""
        request = sessions_pb2.CreateSessionRequest(
            model=model, title=title, system_prompt=system_prompt, agent_id=agent_id
        )
        return (await self._call(self._sessions.CreateSession(request, metadata=self._metadata))).session

    async def get_session(self, session_id: str) -> session_pb2.Session:
        """One session, by id or key."""
        request = sessions_pb2.GetSessionRequest(session_id=session_id)
        return (await self._call(self._sessions.GetSession(request, metadata=self._metadata))).session

    async def list_sessions(self, *, deleted: bool = False) -> AsyncIterator[session_pb2.Session]:
        """Every session, newest first, a page at a time."""
        request = sessions_pb2.ListSessionsRequest(deleted=deleted)
        while True:
            page = await self._call(self._sessions.ListSessions(request, metadata=self._metadata))
            for session in page.sessions:
                yield session
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def update_session(
        self, session_id: str, *, title: str = "", model: str = "", system_prompt: str = "", etag: str = ""
    ) -> session_pb2.Session:
        """Change the fields that are given."""
        change = sessions_pb2.SessionChange(title=title, model=model, system_prompt=system_prompt)
        request = sessions_pb2.UpdateSessionRequest(session_id=session_id, session=change, etag=etag)
        return (await self._call(self._sessions.UpdateSession(request, metadata=self._metadata))).session

    async def delete_session(self, session_id: str) -> session_pb2.Session:
        """Hide a session and cancel its turns."""
        request = sessions_pb2.DeleteSessionRequest(session_id=session_id)
        return (await self._call(self._sessions.DeleteSession(request, metadata=self._metadata))).session

    async def restore_session(self, session_id: str) -> session_pb2.Session:
        """Bring a deleted session back."""
        request = sessions_pb2.RestoreSessionRequest(session_id=session_id)
        return (await self._call(self._sessions.RestoreSession(request, metadata=self._metadata))).session

    async def fork_session(self, session_id: str, *, message_id: str = "", title: str = "") -> session_pb2.Session:
        """Copy the history up to a message (all of it, if none is named) into a new session."""
        request = sessions_pb2.ForkSessionRequest(session_id=session_id, message_id=message_id, title=title)
        return (await self._call(self._sessions.ForkSession(request, metadata=self._metadata))).session

    async def list_messages(self, session_id: str, *, newest_first: bool = False) -> AsyncIterator[message_pb2.Message]:
        """A session's messages, oldest first unless told otherwise, a page at a time."""
        request = sessions_pb2.ListMessagesRequest(session_id=session_id, newest_first=newest_first)
        while True:
            page = await self._call(self._sessions.ListMessages(request, metadata=self._metadata))
            for message in page.messages:
                yield message
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def cancel(self, *, turn_id: str = "", session_id: str = "") -> list[turn_pb2.Turn]:
        """End a turn, or all of a session's; the turns in their terminal state. Ending an ended one is no error."""
        request = chat_pb2.CancelTurnRequest(turn_id=turn_id, session_id=session_id)
        return list((await self._call(self._chat.CancelTurn(request, metadata=self._metadata))).turns)

    async def get_turn(self, turn_id: str) -> turn_pb2.Turn:
        """One turn."""
        request = chat_pb2.GetTurnRequest(turn_id=turn_id)
        return (await self._call(self._chat.GetTurn(request, metadata=self._metadata))).turn

    async def wait_turn(self, turn_id: str, *, timeout: float = 30.0) -> turn_pb2.Turn:
        """The turn when it has ended, or as it is after `timeout` seconds (at most 300)."""
        request = chat_pb2.WaitTurnRequest(turn_id=turn_id, timeout_ms=max(1, round(timeout * 1000)))
        return (await self._call(self._chat.WaitTurn(request, metadata=self._metadata))).turn

    async def context(self, session_id: str) -> context_pb2.InspectContextResponse:
        """What the model would be sent next, section by section."""
        request = context_pb2.InspectContextRequest(session_id=session_id)
        return await self._call(self._context.InspectContext(request, metadata=self._metadata))

    async def usage(self, session_id: str = "") -> usage_pb2.QueryUsageResponse:
        """A session's usage by model and in total; without a session, everything."""
        request = usage_pb2.QueryUsageRequest(session_id=session_id)
        return await self._call(self._usage.QueryUsage(request, metadata=self._metadata))

    async def put_key(self, provider: str, key: str) -> keys_pb2.ProviderKey:
        """Store or replace a provider's key."""
        request = keys_pb2.PutKeyRequest(provider=provider, key=key)
        return (await self._call(self._keys.PutKey(request, metadata=self._metadata))).key

    async def list_keys(self) -> list[keys_pb2.ProviderKey]:
        """The stored keys, masked."""
        response = await self._call(self._keys.ListKeys(keys_pb2.ListKeysRequest(), metadata=self._metadata))
        return list(response.keys)

    async def test_key(self, provider: str) -> keys_pb2.TestKeyResponse:
        """Whether the provider accepts the stored key; uses no tokens."""
        request = keys_pb2.TestKeyRequest(provider=provider)
        return await self._call(self._keys.TestKey(request, metadata=self._metadata))

    async def delete_key(self, provider: str) -> bool:
        """Remove a key. True: there was one."""
        request = keys_pb2.DeleteKeyRequest(provider=provider)
        return (await self._call(self._keys.DeleteKey(request, metadata=self._metadata))).existed

    async def _call(self, call: Awaitable[Answered]) -> Answered:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc(error) from error
