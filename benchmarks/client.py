"""The load: holds chats as a plan says, and counts and times every delta.

Run by processes as `python -m benchmarks.client PLAN` (JSON, see plan.py). It connects and warms up, prints a line,
waits for a line, carries the plan out, prints the outcome (JSON) and ends. A turn whose deltas are not all there, once
and in order, counts as broken.
"""

import asyncio
import secrets
import sys
import time
from statistics import quantiles
from typing import Any

import orjson
import uvloop

from benchmarks.plan import Plan
from benchmarks.stamp import LENGTH, ages, is_whole
from benchmarks.wire import Direct, WebSocket

ANSWER_SECONDS = 60
WARM = "deltas=3 gap_us=0 first_us=0"
_us = time.monotonic_ns


class Tally:
    """What was seen."""

    def __init__(self) -> None:
        self.deltas = self.turns = self.broken = self.frames = 0
        self.first_us: list[int] = []
        self.ages_us: list[int] = []

    def hear(self, text: str) -> None:
        """Deltas came."""
        self.frames += 1
        if len(text) == LENGTH:
            self.ages_us.append((_us() // 1000 - int(text[5:])) % 10**12)
        else:
            self.ages_us += ages(text, _us() // 1000)

    def end(self, text: str, deltas: int) -> None:
        """A turn, or a watcher's share of one, is over."""
        self.turns += 1
        self.deltas += len(text) // LENGTH
        self.broken += not is_whole(text, deltas)

    def outcome(self, seconds: float) -> dict[str, Any]:
        """As JSON; times in milliseconds."""
        return {
            "deltas": self.deltas,
            "turns": self.turns,
            "broken": self.broken,
            "frames": self.frames,
            "seconds": seconds,
            "first_ms": spread(self.first_us),
            "age_ms": spread(self.ages_us),
        }


def spread(times_us: list[int]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    if len(times_us) < 2:
        return {"p50": 0.0, "p99": 0.0}
    cuts = quantiles(times_us, n=100)
    return {"p50": round(cuts[49] / 1000, 3), "p99": round(cuts[98] / 1000, 3)}


class Chat:
    """One connection and the turn it is in."""

    def __init__(self, wire: WebSocket | Direct) -> None:
        self._wire = wire
        self._parts: list[str] = []
        self._sent_us = 0
        self._over: asyncio.Future[None] | None = None
        self.tally = Tally()
        self.session = ""
        wire.heard = self._heard if isinstance(wire, WebSocket) else self._heard_directly

    def _heard(self, payload: bytes) -> None:
        frame = orjson.loads(payload)
        kind = frame["type"]
        if kind == "chat.stream.delta":
            self._delta(frame["delta"])
        elif kind == "chat.stream.end":
            self._end()
        elif kind == "session.created":
            self.session = frame["sessionId"]
        elif kind == "error":
            print(frame, file=sys.stderr)
            self._end()

    def _heard_directly(self, text: bytes) -> None:
        if text:
            self._delta(text.decode())
        else:
            self._end()

    def _delta(self, text: str) -> None:
        if not self._parts:
            self.tally.first_us.append(_us() // 1000 - self._sent_us)
        self._parts.append(text)
        self.tally.hear(text)

    def _end(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    async def turn(self, content: str, deltas: int, session: str = "", *, keyed: bool = False) -> None:
        """Ask and wait for the end of the answer."""
        self._sent_us = _us() // 1000
        if isinstance(self._wire, Direct):
            self._wire.ask(content)
        elif keyed:
            self._wire.say(type="chat.send", id="1", content=content, idempotencyKey=secrets.token_hex(8))
        elif session:
            self._wire.say(type="chat.send", id="1", sessionId=session, content=content)
        else:
            self._wire.say(type="chat.send", id="1", content=content)
        await self.follow(deltas)

    async def follow(self, deltas: int) -> None:
        """Wait for the end of an answer somebody asks for."""
        self._parts = []
        self._over = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._over
        self.tally.end("".join(self._parts), deltas)

    def watch(self, session: str) -> None:
        """Follow a session from now on."""
        assert isinstance(self._wire, WebSocket)
        self._wire.say(type="session.watch", id="1", sessionId=session)


def wire_of(plan: Plan) -> WebSocket | Direct:
    """A connection of the kind the plan asks for, not yet open."""
    return Direct(plan.port) if plan.direct else WebSocket(plan.port, plan.level, plan.token)


async def connect(plan: Plan, count: int) -> list[WebSocket | Direct]:
    """Open the connections, a few at a time."""
    loop = asyncio.get_running_loop()
    wires: list[WebSocket | Direct] = []
    for _ in range(count):
        async with asyncio.timeout(ANSWER_SECONDS):
            _, wire = await loop.create_connection(lambda: wire_of(plan), "127.0.0.1", plan.port)
            if isinstance(wire, WebSocket):
                await wire.opened
        wires.append(wire)
    return wires


async def go() -> None:
    """Tell that everything is ready, and wait for the word."""
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def chats(plan: Plan) -> dict[str, Any]:
    """Every connection holds its turns one after the other; the first turns begin one by one within `stagger_us`."""
    talks = [Chat(wire) for wire in await connect(plan, plan.sockets)]
    await asyncio.gather(*(talk.turn(WARM, 3) for talk in talks))
    tally = Tally()
    for talk in talks:
        talk.tally = tally

    async def hold(talk: Chat, number: int) -> None:
        await asyncio.sleep(plan.stagger_us / 1e6 * number / len(talks))
        for _ in range(plan.turns):
            await talk.turn(plan.content, plan.deltas, keyed=plan.keyed)

    await go()
    began = time.monotonic()
    await asyncio.gather(*(hold(talk, number) for number, talk in enumerate(talks)))
    return tally.outcome(time.monotonic() - began)


async def watched(plan: Plan) -> dict[str, Any]:
    """One chat, and `watchers` connections that watch its session."""
    talk, *watchers = [Chat(wire) for wire in await connect(plan, 1 + plan.watchers)]
    await talk.turn(WARM, 3)
    warming = [asyncio.ensure_future(watcher.follow(3)) for watcher in watchers]
    for watcher in watchers:
        watcher.watch(talk.session)
    await asyncio.sleep(1.0)  # all watch by now: the next turn would be broken for one that does not
    await talk.turn(WARM, 3, talk.session)
    await asyncio.gather(*warming)
    tally = Tally()
    for chat in (talk, *watchers):
        chat.tally = tally
    await go()
    began = time.monotonic()
    following = [asyncio.ensure_future(watcher.follow(plan.deltas)) for watcher in watchers]
    await talk.turn(plan.content, plan.deltas, talk.session)
    await asyncio.gather(*following)
    return tally.outcome(time.monotonic() - began)


async def idle(plan: Plan) -> dict[str, Any]:
    """Nothing but open connections, closed at the word."""
    began = time.monotonic()
    wires = await connect(plan, plan.sockets)
    seconds = time.monotonic() - began
    await go()
    alive = sum(isinstance(wire, WebSocket) and not wire.lost.done() for wire in wires)
    return {"sockets": alive, "seconds": seconds, "broken": plan.sockets - alive}


async def asked(plan: Plan) -> dict[str, Any]:
    """The same request again and again on one connection, each page after the one before."""
    (wire,) = await connect(plan, 1)
    assert isinstance(wire, WebSocket)
    answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def heard(payload: bytes) -> None:
        frame = orjson.loads(payload)
        # It may have come with the handshake, before anybody listened, or come now.
        if frame["type"] != "hello":
            answers.put_nowait(frame)

    wire.heard = heard
    request, times = dict(plan.request), []

    async def ask() -> dict[str, Any]:
        began = _us()
        wire.say(**request)
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await answers.get()
        times.append((_us() - began) // 1000)
        return answer

    await ask()
    times.clear()
    await go()
    began = time.monotonic()
    broken = 0
    for _ in range(plan.turns):
        answer = await ask()
        broken += answer["type"] == "error"
        request["pageToken"] = answer.get("nextPageToken") or ""
    return {"broken": broken, "seconds": time.monotonic() - began, "answer_ms": spread(times), "turns": plan.turns}


async def main() -> None:
    """Carry out the plan."""
    plan = Plan(**orjson.loads(sys.argv[1]))
    outcome = await {"chats": chats, "watched": watched, "idle": idle, "asked": asked}[plan.kind](plan)
    print(orjson.dumps(outcome).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
