"""A JSON door that plays one session from a script and breaks connections when told. For the client and CLI tests."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web

Frame = dict[str, Any]
SESSION, TURN = "s" * 21, "turn-1"
ZERO_COST = {"inputCost": 0, "outputCost": 0, "totalCost": 0.0015, "priced": True}
USAGE = {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}


class JsonDoor:
    """Answers chat.send with `deltas`. drops: after how many frames each next connection breaks; or, with a
    `drop`, after how many more a request ends with that error. replies: to requests, by type. pages: to those that name
    a page, by its token."""

    def __init__(self) -> None:
        self.url = ""
        self.limits = {"maxFrameBytes": 1024 * 1024}
        self.deltas = ["Hel", "lo ", "wor", "ld"]
        self.drops: list[int] = []
        self.drop: Frame | None = None
        self.replies: dict[str, Frame] = {}
        self.pages: dict[str, Frame] = {}
        self.error: Frame | None = None
        self.failure: Frame | None = None
        self.received: list[Frame] = []
        self.authorization: list[str | None] = []
        self.executed = 0
        self.epoch = 1
        self.log: list[Frame] = []
        self.snapshot: Frame | None = None
        self.turns: list[Frame] = []
        self.hold_at: int | None = None
        self.release = asyncio.Event()
        self.holding = asyncio.Event()
        self.ready: tuple[int, Frame] = (200, {"ready": True, "parts": []})

    def run_turn(self) -> None:
        """Write the turn into the log."""
        self.executed += 1
        place = {"turnId": TURN, "epoch": self.epoch}
        block = {"kind": "text", "text": "hi", "complete": True}
        message = {"messageId": "m1", "sessionId": SESSION, "role": "user", "blocks": [block]}
        self.log.append({"type": "chat.message", "message": message, **place})
        self.log.append({"type": "chat.stream.start", "sessionId": SESSION, "model": "m", **place})
        self.log += [{"type": "chat.stream.delta", "delta": piece, "block": 0, **place} for piece in self.deltas]
        end = {"type": "chat.stream.end", "usage": USAGE, "cost": ZERO_COST, "state": "completed", **place}
        self.log.append({"type": "error", **self.failure, **place} if self.failure else end)
        for seq, event in enumerate(self.log, 1):
            event["seq"] = seq
            if event["type"] == "chat.stream.delta":
                event["fromSeq"] = seq

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """One connection."""
        self.authorization.append(request.headers.get("Authorization"))
        socket = web.WebSocketResponse(protocols=("agentspace.v2",))
        await socket.prepare(request)
        hello = {"protocol": "agentspace.v2", "principal": "local", "scopes": ["chat"], "limits": self.limits}
        await socket.send_json({"type": "hello", **hello})
        player = Player(self, socket, request, self.drops.pop(0) if self.drops else None)
        tasks: list[asyncio.Task[None]] = []
        async for said in socket:
            if said.type is not WSMsgType.TEXT:
                break
            frame = said.json()
            self.received.append(frame)
            tasks.append(asyncio.create_task(player.answer(frame)))
            if frame["type"] == "session.watch":
                player.watches.add(tasks[-1])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return socket

    async def health(self, request: web.Request) -> web.Response:
        """GET /health."""
        return web.json_response({"status": "ok", "uptime": 1})

    async def readiness(self, request: web.Request) -> web.Response:
        """GET /ready."""
        return web.json_response(self.ready[1], status=self.ready[0])


class Player:
    """Plays the script on one connection."""

    def __init__(self, door: JsonDoor, socket: web.WebSocketResponse, request: web.Request, budget: int | None) -> None:
        self.door, self.socket, self.request, self.budget = door, socket, request, budget
        self.watches: set[asyncio.Task[None]] = set()

    async def answer(self, frame: Frame) -> None:
        """Answer one frame."""
        door = self.door
        if door.error is not None:
            await self.reply(frame, {"type": "error", **door.error})
            return
        match frame["type"]:
            case "chat.send":
                duplicate = door.executed > 0
                if not duplicate:
                    door.run_turn()
                if not frame.get("sessionId"):
                    await self.event(frame, {"type": "session.created", "sessionId": SESSION, "sessionKey": "k"})
                accepted = {"type": "chat.accepted", "sessionId": SESSION, "turnId": TURN, "messageId": "m1"}
                await self.event(frame, {**accepted, "epoch": door.epoch, "seq": 1, "duplicate": duplicate})
                await self.play(frame, 1)
            case "session.watch":
                after = frame.get("afterSeq")
                if after is None or frame.get("epoch") != door.epoch:
                    if after is not None:
                        reset = {"sessionId": SESSION, "reason": "epoch_changed", "epoch": door.epoch, "seq": 0}
                        await self.event(frame, {"type": "session.reset", **reset})
                    assert door.snapshot is not None
                    await self.event(frame, {"type": "session.snapshot", **door.snapshot})
                    after = door.snapshot["seq"]
                await self.play(frame, after)
            case "turn.cancel":
                cancelled = [{"turnId": TURN, "state": "cancelled"}] if door.log else []
                door.log = door.log[: door.hold_at]
                end = {"type": "chat.stream.end", "usage": USAGE, "cost": ZERO_COST, "state": "cancelled"}
                door.log.append({**end, "turnId": TURN, "epoch": door.epoch, "seq": len(door.log) + 1})
                door.hold_at = None
                door.release.set()
                await self.reply(frame, {"type": "turn.cancel", "turns": cancelled})
            case "turn.list":
                await self.reply(frame, {"type": "turn.list", "turns": door.turns, "nextPageToken": ""})
            case "session.unwatch":
                for watch in self.watches:
                    watch.cancel()
                await self.reply(frame, {"type": "session.unwatched", "sessionId": SESSION})
            case kind:
                missing = {"type": "error", "code": "NOT_IMPLEMENTED", "message": kind, "retryable": False}
                page = door.pages.get(frame.get("pageToken") or "")
                await self.event(frame, page or door.replies.get(kind, missing))

    async def play(self, frame: Frame, after: int) -> None:
        """The events after a position."""
        place = after
        while place < len(self.door.log):
            if self.door.hold_at == place:
                self.door.holding.set()
                await self.door.release.wait()
            await self.event(frame, self.door.log[place])
            place += 1

    async def event(self, frame: Frame, event: Frame) -> None:
        """Send an event, or break the connection."""
        if self.budget is not None:
            if self.budget == 0 and self.door.drop is not None:
                self.budget = self.door.drops.pop(0) if self.door.drops else None
                await self.reply(frame, {"type": "error", **self.door.drop})
                raise ConnectionResetError
            if self.budget == 0:
                assert self.request.transport is not None
                self.request.transport.abort()
                raise ConnectionResetError
            self.budget -= 1
        await self.reply(frame, event)

    async def reply(self, frame: Frame, answer: Frame) -> None:
        """Send an answer."""
        await self.socket.send_json({**answer, "requestId": frame["id"]})


@asynccontextmanager
async def json_door(tls: ssl.SSLContext | None = None) -> AsyncIterator[JsonDoor]:
    """A door on a free port."""
    door = JsonDoor()
    app = web.Application()
    app.router.add_get("/gateway", door.serve)
    app.router.add_get("/health", door.health)
    app.router.add_get("/ready", door.readiness)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    door.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield door
    finally:
        door.release.set()
        await runner.cleanup()
