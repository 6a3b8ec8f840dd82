"""kill -9 of the gateway at random moments under load: what was accepted is there, nothing is generated twice."""

import asyncio
import random
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.journeys.conftest import House
from tests.journeys.doors import Door, Frame, GoneError, door, hear, ready
from tests.journeys.reader import Reader

pytestmark = pytest.mark.asyncio(loop_scope="module")

READY_SECONDS = 3.0
# A checkpoint every 250 ms, its commit, and the time a delta takes to be seen.
CHECKPOINT_SECONDS = 1.0
WORDS = 60
RETRIED = ("SHUTTING_DOWN", "GATEWAY_UNREACHABLE", "STORAGE_UNAVAILABLE")


@dataclass(slots=True)
class Sent:
    """An accepted message, and what was seen of its answer: (time, characters)."""

    session: str
    turn: str
    content: str
    epoch: int
    seq: int
    seen: list[tuple[float, int]] = field(default_factory=list)
    end: Frame | None = None


@dataclass(slots=True)
class Load:
    """Clients at work until told to stop."""

    house: House
    dice: random.Random
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    sent: list[Sent] = field(default_factory=list)
    resets: int = 0

    async def client(self, number: int) -> None:
        """Three messages at a time in a session of its own, followed to their ends over every break."""
        way = door(("websocket", "grpc")[number % 2], self.house.stack)
        session, turns = "", 0
        while not self.stop.is_set():
            batch = []
            for _ in range(self.dice.randint(1, 3)):
                turns += 1
                batch.append(await self.send(way, session, f"{number}.{turns}"))
                session = batch[0].session
            await self.follow(way, batch)

    async def send(self, way: Door, session: str, name: str) -> Sent:
        """Until it is accepted."""
        content = f"message {name} " + " ".join(str(self.dice.randrange(10**6)) for _ in range(WORDS))
        to = {"sessionId": session} if session else {}
        while True:
            try:
                async with way.open("chat.send", content=content, idempotencyKey=name, onBusy="queue", **to) as stream:
                    answer = (await hear(stream, "chat.accepted", "error"))[-1]
            except GoneError:
                await ready(self.house.stack)
                continue
            if answer["type"] == "chat.accepted":
                self.sent.append(
                    Sent(
                        session=answer["sessionId"],
                        turn=answer["turnId"],
                        content=content,
                        epoch=answer["epoch"],
                        seq=answer["seq"],
                    )
                )
                return self.sent[-1]
            assert answer["code"] in RETRIED, answer

    async def follow(self, way: Door, batch: list[Sent]) -> None:
        """Until all have ended, as far as can be seen."""
        reader = Reader(batch[0].session, batch[0].epoch, batch[0].seq)
        open_turns = {sent.turn: sent for sent in batch}
        unsure = False
        while open_turns:
            try:
                if unsure:
                    # The gateway was killed before it had told which turns ended ahead of the last snapshot.
                    for turn in await self.ended_meanwhile(way, open_turns):
                        del open_turns[turn]
                    unsure = False
                    continue
                async with way.open("session.watch", sessionId=reader.session, **reader.position()) as stream:
                    while open_turns:
                        frame = await stream.next()
                        reader.take(frame)
                        if frame["type"] == "session.snapshot":
                            self.resets += 1
                            unsure = True
                            for turn in await self.ended_meanwhile(way, open_turns):
                                del open_turns[turn]
                            unsure = False
                        elif (sent := open_turns.get(frame.get("turnId", ""))) is not None:
                            sent.seen.append((asyncio.get_running_loop().time(), len(reader.text.get(sent.turn, ""))))
                            if sent.turn in reader.ends:
                                open_turns.pop(sent.turn).end = frame
            except GoneError:
                await ready(self.house.stack)

    async def ended_meanwhile(self, way: Door, turns: dict[str, Sent]) -> list[str]:
        """The turns whose end lies before the snapshot."""
        states = {turn: (await way.ask("turn.get", turnId=turn))["turn"]["state"] for turn in turns}
        return [turn for turn, state in states.items() if state not in ("queued", "running")]


def check_database(home: Path) -> None:
    """The database as the crash left it is sound."""
    with tempfile.TemporaryDirectory() as folder:
        for path in home.glob("agentspace.db*"):
            shutil.copy(path, folder)
        connection = sqlite3.connect(Path(folder) / "agentspace.db")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


@pytest.mark.requirement("accepted.durable")
@pytest.mark.requirement("crash.nothing-twice")
@pytest.mark.requirement("crash.prefix")
@pytest.mark.requirement("crash.ready")
@pytest.mark.requirement("send.queue")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rounds", [pytest.param(3, id="few"), pytest.param(50, id="many", marks=pytest.mark.slow)])
async def test_killed_at_random_moments_under_load(house: House, rounds: int) -> None:
    house.upstream.pace = 0.02
    loop = asyncio.get_running_loop()
    # The clients share two processors with what they measure.
    loop.set_debug(False)
    load = Load(house, random.Random(rounds))
    kills: list[tuple[float, float]] = []
    """When each gateway was killed, and when there was the next."""
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(load.client(number))
        for _ in range(rounds):
            seen = len(house.upstream.chats)
            async with asyncio.timeout(30):
                await house.upstream.chat(seen + load.dice.randrange(6))
                await house.upstream.chats[-1].reached(load.dice.randrange(WORDS))
            killed = loop.time()
            await house.stack.kill_gateway()
            check_database(house.stack.home)
            began = loop.time()
            await house.stack.start_gateway()
            await ready(house.stack)
            kills.append((killed, loop.time()))
            assert loop.time() - began < READY_SECONDS
        load.stop.set()
    assert load.resets
    await check(load, kills)


async def check(load: Load, kills: list[tuple[float, float]]) -> None:
    """What is stored against what was accepted, seen and billed."""
    way = door("grpc", load.house.stack)
    by_session: dict[str, list[Sent]] = defaultdict(list)
    for sent in load.sent:
        by_session[sent.session].append(sent)
    interrupted = 0
    for session, all_sent in by_session.items():
        messages = (await way.ask("session.history", sessionId=session, pageSize=1000))["messages"]
        assert [m["blocks"][0]["text"] for m in messages if m["role"] == "user"] == [s.content for s in all_sent]
        answers = {m["turnId"]: m["blocks"][0]["text"] for m in messages if m["role"] == "assistant"}
        rows = (await way.ask("usage.records", sessionId=session, pageSize=1000))["records"]
        assert len({row["turnId"] for row in rows}) == len(rows), "one attempt a turn, one row an attempt"
        calls = [call for sent in all_sent for call in load.house.calls(sent.content)]
        order = [call.said()[-1][1] for call in sorted(calls, key=lambda call: call.started_at)]
        assert order == [s.content for s in all_sent if s.content in order], "queued turns run in their order"
        for sent in all_sent:
            whole = f"You said: {sent.content}"
            turn = (await way.ask("turn.get", turnId=sent.turn))["turn"]
            calls = load.house.calls(sent.content)
            assert len(calls) <= 1, "generated twice"
            mine = [row for row in rows if row["turnId"] == sent.turn]
            text = answers.get(sent.turn, "")
            if turn["state"] == "completed":
                assert text == whole
                assert [(row["outcome"], row["usage"]["outputTokens"]) for row in mine] == [("completed", WORDS + 3)]
                assert calls[0].outcome == "completed"
                continue
            interrupted += 1
            assert turn["state"] == "interrupted", turn
            assert turn["error"]["code"] == "TURN_INTERRUPTED"
            assert turn["error"]["execution"] == "may_have_executed"
            assert whole.startswith(text)
            assert sent.end is None or sent.end["type"] == "error"
            if seen := [(at, size) for at, size in sent.seen if size]:
                # What was on its way is seen a little after the kill.
                kill = min(kill for kill, back in kills if back >= seen[0][0])
                due = [size for at, size in seen if at < kill - CHECKPOINT_SECONDS]
                assert len(text) >= max(due, default=0), (text, kill, sent)
        for call in calls:
            users = [text for role, text in call.said() if role == "user"]
            assert len(users) == len(set(users))
    assert interrupted
