"""Client: the JSON door with a memory. Used by the CLI; calls websocket, and connects again when a connection broke.

chat() and watch() go on where they were, in the middle of an answer too: the same promise as stream gives over gRPC.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from agentspace.client.errors import AgentSpaceError, UnreachableError, unreachable
from agentspace.client.pace import Pace
from agentspace.client.position import Answer, Position
from agentspace.client.websocket import Frame, Socket, from_frame

DEFAULT_PATIENCE = 30.0
PAGE = 1000
TEXT, THINKING, TOOL = "chat.stream.delta", "chat.stream.thinking", "chat.stream.tool"
DELTAS = frozenset({TEXT, THINKING, TOOL})
EVENTS = DELTAS | {"chat.message", "chat.stream.start", "chat.stream.end", "error"}
"""Frames with a place in the session's log."""


class Client:
    """A client of one server. patience: how many seconds a stream tries to reach it again before it gives up."""

    def __init__(self, url: str, token: str | None = None, *, patience: float = DEFAULT_PATIENCE) -> None:
        self._url = url
        self._token = token
        self._patience = patience
        self._socket: Socket | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def connect(self) -> Socket:
        """The open connection; a new one if there is none. Raises UnreachableError at once, without a second try."""
        # One at a time: of several new connections only the last would ever be closed.
        async with self._connecting:
            if self._socket is None or self._socket.closed:
                self._socket = await Socket.open(self._url, self._token)
            return self._socket

    async def request(self, type_: str, **fields: Any) -> Frame:
        """One frame, one answer."""
        return await (await self.connect()).request(type_, **fields)

    async def pages(self, type_: str, member: str, **fields: Any) -> AsyncGenerator[Frame, None]:
        """The members of every page of a list, one by one."""
        token = ""
        while True:
            page = await self.request(type_, pageSize=PAGE, pageToken=token, **fields)
            for item in page[member]:
                yield item
            token = page.get("nextPageToken") or ""
            if not token:
                return

    async def chat(self, content: str, **fields: Any) -> AsyncGenerator[Frame, None]:
        """Send a message and follow its turn: the frames of the turn, each once, to chat.stream.end or its error.

        fields: sessionId, model, idempotencyKey, onBusy of chat.send. Raises an error of the request; yields that of
        the turn. A frame {"type": "connection.lost"} tells that the stream broke and is being taken up again.
        """
        given = {name: value for name, value in fields.items() if value}
        fields = {"idempotencyKey": secrets.token_urlsafe(24), **given}
        pace = Pace(self._patience)
        answer = Answer()
        accepted: Frame | None = None
        announced = False
        seq = 0
        while accepted is None:
            broken: AgentSpaceError = unreachable("the connection ended")
            try:
                socket = await self.connect()
                async with aclosing(socket.stream("chat.send", content=content, **fields)) as frames:
                    async for frame in frames:
                        if frame["type"] == "session.created":
                            if announced:
                                continue
                            announced = True
                        if frame["type"] == "chat.accepted":
                            accepted = frame
                        seq = frame.get("seq") or seq
                        _hear(answer, frame)
                        yield frame
                        if _ends(frame):
                            return
            except AgentSpaceError as error:
                # A turn that was accepted goes on without its reader. Its own error would have been a frame.
                if not (isinstance(error, UnreachableError) or (accepted is not None and error.retryable)):
                    raise
                broken = error
            yield {"type": "connection.lost"}
            if accepted is None:
                await pace.wait(broken)
        async with aclosing(self._finish(accepted, seq, answer)) as rest:
            async for frame in rest:
                yield frame

    async def watch(self, session_id: str, position: Position | None = None) -> AsyncGenerator[Frame, None]:
        """The session's frames after the position (without one: from a snapshot), each once, until it is deleted.

        Goes on after errors that say that trying again may help. A frame {"type": "connection.lost"} tells that the
        stream broke and is being taken up again.
        """
        position = position or Position()
        pace = Pace(self._patience)
        while True:
            broken: AgentSpaceError = unreachable("the connection ended")
            place = {"epoch": position.epoch, "afterSeq": position.seq} if position.known else {}
            try:
                socket = await self.connect()
                async with aclosing(socket.watch(session_id, **place)) as frames:
                    async for frame in frames:
                        if frame["type"] == "session.snapshot":
                            position.set(frame["epoch"], frame["seq"])
                        elif frame["type"] in EVENTS:
                            seq = frame["seq"]
                            if not position.advance(frame["epoch"], frame.get("fromSeq") or seq, seq):
                                continue
                        pace.progress()
                        yield frame
            except AgentSpaceError as error:
                if not error.retryable:
                    raise
                broken = error
            yield {"type": "connection.lost"}
            await pace.wait(broken)

    async def _finish(self, accepted: Frame, seq: int, answer: Answer) -> AsyncGenerator[Frame, None]:
        """The rest of an accepted turn, after event `seq`."""
        session_id, turn_id = accepted["sessionId"], accepted["turnId"]
        async with aclosing(self.watch(session_id, Position(accepted["epoch"], seq))) as frames:
            async for frame in frames:
                match frame["type"]:
                    case "session.snapshot":
                        async for late in self._catch_up(turn_id, frame, answer):
                            yield late
                            if _ends(late):
                                return
                    case "heartbeat" | "connection.lost":
                        yield frame
                    case "session.reset" | "chat.message":
                        pass
                    case _:
                        if frame.get("turnId") != turn_id:
                            continue
                        _hear(answer, frame)
                        yield frame
                        if _ends(frame):
                            return

    async def _catch_up(self, turn_id: str, snapshot: Frame, answer: Answer) -> AsyncGenerator[Frame, None]:
        """What a snapshot has of the turn beyond what was read, with its end if it has ended."""
        active = snapshot.get("activeTurn") or {}
        if active.get("turnId") == turn_id:
            for frame in _missing(active["blocks"], turn_id, snapshot, answer):
                yield frame
            return
        if turn_id in snapshot["queuedTurnIds"]:
            return
        turn = (await self._insist("turn.get", turnId=turn_id))["turn"]
        stored = await self._message(turn, snapshot)
        if stored is not None:
            for frame in _missing(stored["blocks"], turn_id, snapshot, answer):
                yield frame
        place = {"turnId": turn_id, "sessionId": turn["sessionId"], "epoch": snapshot["epoch"], "seq": turn["lastSeq"]}
        if turn.get("error") and turn["error"].get("code"):
            yield {**turn["error"], "type": "error", **place}
        elif turn["state"] == "interrupted":
            message = "the gateway stopped before the answer was complete"
            yield {"type": "error", "code": "TURN_INTERRUPTED", "message": message, "retryable": True, **place}
        else:
            ended = {name: turn.get(name) for name in ("usage", "cost", "state", "stopReason")}
            yield {"type": "chat.stream.end", **ended, "messageId": turn.get("answerMessageId", ""), **place}

    async def _message(self, turn: Frame, snapshot: Frame) -> Frame | None:
        """The turn's answer: out of the snapshot, or, when it is older than that reaches, out of the history."""
        wanted = turn.get("answerMessageId")
        found = _find(snapshot["messages"], wanted)
        token = ""
        while found is None and wanted:
            page = await self._insist(
                "session.history", sessionId=turn["sessionId"], newestFirst=True, pageSize=PAGE, pageToken=token
            )
            found = _find(page["messages"], wanted)
            token = page.get("nextPageToken") or ""
            if not token:
                break
        return found

    async def _insist(self, type_: str, **fields: Any) -> Frame:
        """A reading request's answer, over broken connections and errors that may pass."""
        pace = Pace(self._patience)
        while True:
            try:
                return await self.request(type_, **fields)
            except AgentSpaceError as error:
                if not error.retryable:
                    raise
                broken = error
            await pace.wait(broken)


def raise_if_failed(frame: Frame) -> None:
    """Raise the error of a turn, if the frame is one."""
    if frame["type"] == "error":
        raise from_frame(frame)


def _ends(frame: Frame) -> bool:
    return frame["type"] in ("chat.stream.end", "error")


def _hear(answer: Answer, frame: Frame) -> None:
    if frame["type"] in DELTAS:
        answer.heard(frame.get("block", 0), frame["delta"])


def _missing(blocks: Sequence[Frame], turn_id: str, snapshot: Frame, answer: Answer) -> list[Frame]:
    """The stored blocks beyond what was heard, as deltas that end at the snapshot's position."""
    kinds = {"text": TEXT, "thinking": THINKING}
    return [
        {
            "type": kinds.get(blocks[index]["kind"], TOOL),
            "delta": rest,
            "turnId": turn_id,
            "epoch": snapshot["epoch"],
            "fromSeq": snapshot["seq"],
            "seq": snapshot["seq"],
            "block": index,
        }
        for index, rest in answer.missing([block.get("rawJson") or block["text"] for block in blocks])
    ]


def _find(messages: Sequence[Frame], message_id: str | None) -> Frame | None:
    return next((message for message in messages if message["messageId"] == message_id), None)
