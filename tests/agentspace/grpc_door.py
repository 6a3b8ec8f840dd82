"""A gRPC door that plays one session from a script and breaks calls when told. Used by the SDK's tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from agentspace.v1 import chat_service_pb2 as chat
from agentspace.v1 import chat_service_pb2_grpc, message_pb2, session_pb2, session_service_pb2_grpc, turn_pb2
from agentspace.v1 import session_service_pb2 as sessions
from agentspace.v1.error_pb2 import Error, ErrorReason

Context = grpc.aio.ServicerContext[Any, Any]
SESSION, TURN = "s" * 21, "turn-1"


class GrpcDoor(chat_service_pb2_grpc.ChatServiceServicer, session_service_pb2_grpc.SessionServiceServicer):
    """Answers SendMessage with `deltas`. drops: after how many events each next call breaks, with `drop` if set."""

    def __init__(self) -> None:
        self.target = ""
        self.deltas = ["Hel", "lo ", "wor", "ld"]
        self.drops: list[int] = []
        self.drop: Error | None = None
        self.epoch = 1
        self.log: list[Any] = []
        self.failure: Error | None = None
        self.snapshot: turn_pb2.SessionSnapshot | None = None
        self.turn = turn_pb2.Turn(turn_id=TURN, session_id=SESSION)
        self.requests: list[chat.SendMessageRequest] = []
        self.metadata: dict[str, Any] = {}
        self.executed = 0
        self.stays = False
        """A watch waits for more after the last event, until it is `left`."""
        self.left = asyncio.Event()

    def run_turn(self) -> None:
        """Write the turn into the log."""
        self.executed += 1
        place: dict[str, Any] = {"turn_id": TURN, "epoch": self.epoch}
        self.log = [turn_pb2.MessageCommitted(seq=1, **place), turn_pb2.TurnStarted(seq=2, **place)]
        for seq, piece in enumerate(self.deltas, 3):
            self.log.append(turn_pb2.TextDelta(delta=piece, from_seq=seq, seq=seq, **place))
        seq = len(self.log) + 1
        end = turn_pb2.TurnEnded(seq=seq, state=turn_pb2.TURN_STATE_COMPLETED, **place)
        if self.failure is not None:
            self.failure.seq, self.failure.epoch, self.failure.turn_id = seq, self.epoch, TURN
        self.log.append(self.failure or end)

    async def break_off(self, context: Context) -> None:
        """End the call, with `drop` if set."""
        if self.drop is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server went away")
        else:
            reason = ErrorReason.Name(self.drop.code).removeprefix("ERROR_REASON_")
            await refuse(context, grpc.StatusCode.UNAVAILABLE, reason, self.drop.message, {})

    async def SendMessage(
        self, request: chat.SendMessageRequest, context: Context
    ) -> AsyncIterator[chat.SendMessageResponse]:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata() or ())
        budget = self.drops.pop(0) if self.drops else -1
        if duplicate := self.executed > 0:
            pass
        else:
            self.run_turn()
        events: list[Any] = [turn_pb2.SessionCreated(session_id=SESSION)] if not request.session_id else []
        ack = turn_pb2.MessageAccepted(session_id=SESSION, turn_id=TURN, epoch=self.epoch, seq=1, duplicate=duplicate)
        names = {turn_pb2.SessionCreated: "session_created", turn_pb2.MessageAccepted: "accepted", **NAMES}
        for event in [*events, ack, *self.log[1:]]:
            if budget == 0:
                if self.drop is not None:
                    yield chat.SendMessageResponse(failed=self.drop)
                    return
                await self.break_off(context)
            budget -= 1
            yield chat.SendMessageResponse(**{names[type(event)]: event})

    async def WatchSession(
        self, request: chat.WatchSessionRequest, context: Context
    ) -> AsyncIterator[chat.WatchSessionResponse]:
        budget = self.drops.pop(0) if self.drops else -1
        after = request.after_seq
        if not request.HasField("after_seq") or request.epoch != self.epoch:
            yield chat.WatchSessionResponse(reset=turn_pb2.SessionReset(epoch=self.epoch))
            assert self.snapshot is not None
            yield chat.WatchSessionResponse(snapshot=self.snapshot)
            after = self.snapshot.seq
        for event in self.log[after:]:
            if budget == 0:
                if self.drop is not None and event is not self.log[after]:
                    yield chat.WatchSessionResponse(failed=self.drop)
                    return
                await self.break_off(context)
            budget -= 1
            yield chat.WatchSessionResponse(**{NAMES[type(event)]: event})
        if self.stays:
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()

    async def GetTurn(self, request: chat.GetTurnRequest, context: Context) -> chat.GetTurnResponse:
        if self.drops and self.drops.pop(0) == 0:
            await self.break_off(context)
        return chat.GetTurnResponse(turn=self.turn)

    async def CancelTurn(self, request: chat.CancelTurnRequest, context: Context) -> chat.CancelTurnResponse:
        return chat.CancelTurnResponse(turns=[self.turn])

    async def ListSessions(
        self, request: sessions.ListSessionsRequest, context: Context
    ) -> sessions.ListSessionsResponse:
        if request.page_token:
            return sessions.ListSessionsResponse(sessions=[session_pb2.Session(session_id="b")])
        return sessions.ListSessionsResponse(sessions=[session_pb2.Session(session_id="a")], next_page_token="2")

    async def ListMessages(
        self, request: sessions.ListMessagesRequest, context: Context
    ) -> sessions.ListMessagesResponse:
        blocks = [message_pb2.ContentBlock(kind=message_pb2.BLOCK_KIND_TEXT, text="Hello world")]
        return sessions.ListMessagesResponse(messages=[message_pb2.Message(message_id="old", blocks=blocks)])

    async def GetSession(self, request: sessions.GetSessionRequest, context: Context) -> sessions.GetSessionResponse:
        retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2))
        facts = {"sessionId": request.session_id, **FACTS}
        await refuse(context, grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND", "no such session", facts, retry)
        raise AssertionError


async def refuse(
    context: Context, code: grpc.StatusCode, reason: str, message: str, facts: dict[str, str], *details: Message
) -> None:
    """End the call as the gateway ends one that it refuses."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in (error_details_pb2.ErrorInfo(reason=reason, domain="agentspace.dev", metadata=facts), *details):
        status.details.add().Pack(detail)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(code, message)


FACTS = {"retryable": "false", "execution": "not_started"}
NAMES: dict[type, str] = {
    turn_pb2.MessageCommitted: "message",
    turn_pb2.TurnStarted: "started",
    turn_pb2.TextDelta: "text",
    turn_pb2.TurnEnded: "ended",
    Error: "failed",
}


@asynccontextmanager
async def grpc_door() -> AsyncIterator[GrpcDoor]:
    """A door on a free port."""
    door = GrpcDoor()
    server = grpc.aio.server()
    chat_service_pb2_grpc.add_ChatServiceServicer_to_server(door, server)
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(door, server)
    door.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield door
    finally:
        await server.stop(0)
