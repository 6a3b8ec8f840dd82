"""The resume loop over gRPC: streams that outlive connections. Called by gateway; calls the generated stubs.

A send that was not acknowledged is sent again under its idempotency key; an acknowledged one is followed by watching
the session from the last event read. So the reader gets every event once, through any number of broken connections.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc.aio

from agentspace.client import status
from agentspace.client.errors import AgentSpaceError, TurnInterruptedError, UnreachableError, unreachable
from agentspace.client.pace import Pace
from agentspace.client.position import Answer, Position
from agentspace.v1 import chat_service_pb2, error_pb2, message_pb2, session_service_pb2, turn_pb2

if TYPE_CHECKING:
    # The generated modules declare these for type checkers only.
    from agentspace.v1.chat_service_pb2_grpc import ChatServiceAsyncStub
    from agentspace.v1.session_service_pb2_grpc import SessionServiceAsyncStub

Delta = turn_pb2.TextDelta | turn_pb2.ThinkingDelta | turn_pb2.ToolDelta
ChatEvent = (
    turn_pb2.SessionCreated
    | turn_pb2.MessageAccepted
    | turn_pb2.TurnStarted
    | Delta
    | turn_pb2.TurnEnded
    | turn_pb2.Heartbeat
)
WatchEvent = (
    turn_pb2.SessionReset
    | turn_pb2.SessionSnapshot
    | turn_pb2.MessageCommitted
    | turn_pb2.TurnStarted
    | Delta
    | turn_pb2.TurnEnded
    | error_pb2.Error
    | turn_pb2.Heartbeat
)
DELTAS = (turn_pb2.TextDelta, turn_pb2.ThinkingDelta, turn_pb2.ToolDelta)

SILENCE_SECONDS = 60.0
"""A stream that brought nothing for so long is taken for broken; the server sends heartbeats every 15 s."""

Metadata = tuple[tuple[str, str], ...]
Answered = TypeVar("Answered")
Response = TypeVar("Response", chat_service_pb2.SendMessageResponse, chat_service_pb2.WatchSessionResponse)


class Streams:
    """What the streams of one Gateway have in common: where they go, as whom, and how long they try."""

    def __init__(
        self,
        chat: "ChatServiceAsyncStub",
        sessions: "SessionServiceAsyncStub",
        metadata: Metadata,
        patience: float,
    ) -> None:
        self._chat = chat
        self._sessions = sessions
        self._metadata = metadata
        self._patience = patience

    async def send(self, request: chat_service_pb2.SendMessageRequest) -> AsyncGenerator[ChatEvent, None]:
        """The events of the message's turn, each once, to TurnEnded. Raises the turn's error if it failed."""
        pace = Pace(self._patience)
        answer = Answer()
        accepted: turn_pb2.MessageAccepted | None = None
        announced = False
        seq = 0
        while accepted is None:
            broken: AgentSpaceError = unreachable("the server ended the call")
            try:
                async with aclosing(self._read(self._chat.SendMessage(request, metadata=self._metadata))) as responses:
                    async for response in responses:
                        event = _chat_event(response)
                        match event:
                            case turn_pb2.SessionCreated():
                                if announced:
                                    continue
                                announced = True
                            case turn_pb2.MessageAccepted():
                                accepted, seq = event, event.seq
                            case turn_pb2.Heartbeat():
                                pass
                            case _:
                                seq = event.seq
                        if isinstance(event, DELTAS):
                            answer.heard(event.block, event.delta)
                        yield event
                        if isinstance(event, turn_pb2.TurnEnded):
                            return
            except AgentSpaceError as error:
                # A turn that was accepted goes on without its reader, unless it is the turn itself that failed.
                lost = accepted is not None and error.retryable and not error.turn_id
                if not (lost or isinstance(error, UnreachableError)):
                    raise
                broken = error
            if accepted is None:
                await pace.wait(broken)
        async with aclosing(self._finish(accepted, seq, answer)) as rest:
            async for event in rest:
                yield event

    async def watch(self, session_id: str, position: Position) -> AsyncGenerator[WatchEvent, None]:
        """The session's events after the position, each once, until the session is deleted (NotFoundError).

        Goes on after errors that say that trying again may help.
        """
        pace = Pace(self._patience)
        while True:
            broken: AgentSpaceError = unreachable("the server ended the call")
            request = chat_service_pb2.WatchSessionRequest(session_id=session_id)
            if position.known:
                request.epoch, request.after_seq = position.epoch, position.seq
            try:
                async with aclosing(self._read(self._chat.WatchSession(request, metadata=self._metadata))) as responses:
                    async for response in responses:
                        event = _watch_event(response)
                        match event:
                            case turn_pb2.SessionSnapshot():
                                position.set(event.epoch, event.seq)
                            case turn_pb2.SessionReset() | turn_pb2.Heartbeat():
                                pass
                            case error_pb2.Error() if not event.seq:
                                # No place in the log: it is not a turn that ends with it, but the watch.
                                raise status.from_message(event)
                            case turn_pb2.TextDelta() | turn_pb2.ThinkingDelta() | turn_pb2.ToolDelta():
                                if not position.advance(event.epoch, event.from_seq, event.seq):
                                    continue
                            case _:
                                if not position.advance(event.epoch, event.seq, event.seq):
                                    continue
                        pace.progress()
                        yield event
            except AgentSpaceError as error:
                if not error.retryable:
                    raise
                broken = error
            await pace.wait(broken)

    async def _finish(
        self, accepted: turn_pb2.MessageAccepted, seq: int, answer: Answer
    ) -> AsyncGenerator[ChatEvent, None]:
        """The rest of an accepted turn, after event `seq`."""
        position = Position(accepted.epoch, seq)
        async with aclosing(self.watch(accepted.session_id, position)) as events:
            async for event in events:
                match event:
                    case turn_pb2.SessionSnapshot():
                        async for late in self._catch_up(accepted.turn_id, event, answer):
                            yield late
                            if isinstance(late, turn_pb2.TurnEnded):
                                return
                    case turn_pb2.SessionReset() | turn_pb2.MessageCommitted():
                        pass
                    case error_pb2.Error():
                        if event.turn_id == accepted.turn_id:
                            raise status.from_message(event)
                    case turn_pb2.Heartbeat():
                        yield event
                    case _:
                        if event.turn_id != accepted.turn_id:
                            continue
                        if isinstance(event, DELTAS):
                            answer.heard(event.block, event.delta)
                        yield event
                        if isinstance(event, turn_pb2.TurnEnded):
                            return

    async def _catch_up(
        self, turn_id: str, snapshot: turn_pb2.SessionSnapshot, answer: Answer
    ) -> AsyncGenerator[ChatEvent, None]:
        """What a snapshot has of the turn beyond what was read, with its end if it has ended."""
        if snapshot.active_turn.turn_id == turn_id:
            for piece in _missing(snapshot.active_turn.blocks, turn_id, snapshot, answer):
                yield piece
            return
        if turn_id in snapshot.queued_turn_ids:
            return
        turn = await self._turn(turn_id)
        stored = await self._message(turn, snapshot)
        if stored is not None:
            for piece in _missing(stored.blocks, turn_id, snapshot, answer):
                yield piece
        if turn.HasField("error"):
            raise status.from_message(turn.error)
        if turn.state == turn_pb2.TURN_STATE_INTERRUPTED:
            raise TurnInterruptedError(
                "TURN_INTERRUPTED", "the gateway stopped", turn_id=turn_id, session_id=turn.session_id
            )
        yield turn_pb2.TurnEnded(
            usage=turn.usage,
            cost=turn.cost,
            turn_id=turn_id,
            epoch=snapshot.epoch,
            seq=turn.last_seq,
            state=turn.state,
            stop_reason=turn.stop_reason,
            message_id=turn.answer_message_id,
        )

    async def _turn(self, turn_id: str) -> turn_pb2.Turn:
        request = chat_service_pb2.GetTurnRequest(turn_id=turn_id)
        response = await self._insist(lambda: self._chat.GetTurn(request, metadata=self._metadata))
        return response.turn

    async def _message(self, turn: turn_pb2.Turn, snapshot: turn_pb2.SessionSnapshot) -> message_pb2.Message | None:
        """The turn's answer: out of the snapshot, or, when it is older than that reaches, out of the history."""
        found = _find(snapshot.messages, turn.answer_message_id)
        request = session_service_pb2.ListMessagesRequest(session_id=turn.session_id, page_size=1000, newest_first=True)
        while found is None and turn.answer_message_id:
            page = await self._insist(lambda: self._sessions.ListMessages(request, metadata=self._metadata))
            found = _find(page.messages, turn.answer_message_id)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return found

    async def _insist(self, call: Callable[[], Awaitable[Answered]]) -> Answered:
        """A reading call's response, over broken connections and errors that may pass."""
        pace = Pace(self._patience)
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                reason = status.from_rpc(error)
                if not reason.retryable:
                    raise reason from error
            await pace.wait(reason)

    async def _read(self, call: grpc.aio.UnaryStreamCall[Any, Response]) -> AsyncGenerator[Response, None]:
        """The call's responses; its failure as one of our exceptions. The call ends with the iteration."""
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    response = await call.read()
                if response is grpc.aio.EOF:
                    return
                yield cast(Response, response)
        except TimeoutError as error:
            raise unreachable("the server fell silent") from error
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc(error) from error
        finally:
            call.cancel()


def _missing(
    blocks: Sequence[message_pb2.ContentBlock], turn_id: str, snapshot: turn_pb2.SessionSnapshot, answer: Answer
) -> Iterator[Delta]:
    """The stored blocks beyond what was heard, as deltas that end at the snapshot's position."""
    for index, rest in answer.missing([block.raw_json or block.text for block in blocks]):
        block, epoch, seq = blocks[index], snapshot.epoch, snapshot.seq
        match block.kind:
            case message_pb2.BLOCK_KIND_TEXT:
                yield turn_pb2.TextDelta(delta=rest, turn_id=turn_id, epoch=epoch, from_seq=seq, seq=seq, block=index)
            case message_pb2.BLOCK_KIND_THINKING:
                yield turn_pb2.ThinkingDelta(
                    delta=rest, turn_id=turn_id, epoch=epoch, from_seq=seq, seq=seq, block=index
                )
            case _:
                yield turn_pb2.ToolDelta(
                    delta=rest,
                    turn_id=turn_id,
                    epoch=epoch,
                    from_seq=seq,
                    seq=seq,
                    block=index,
                    tool_use_id=block.tool_use_id,
                    tool_name=block.tool_name,
                )


def _find(messages: Iterable[message_pb2.Message], message_id: str) -> message_pb2.Message | None:
    return next((message for message in messages if message.message_id == message_id), None)


def _chat_event(response: chat_service_pb2.SendMessageResponse) -> ChatEvent:
    name = response.WhichOneof("event")
    if name == "failed":
        raise status.from_message(response.failed)
    event: ChatEvent = getattr(response, name) if name else turn_pb2.Heartbeat()
    return event


def _watch_event(response: chat_service_pb2.WatchSessionResponse) -> WatchEvent:
    name = response.WhichOneof("event")
    event: WatchEvent = getattr(response, name) if name else turn_pb2.Heartbeat()
    return event
