"""Any interleaving of sends, deltas, ends, cancels, watchers that come and go, and kills keeps every promise."""

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from agentspace.v1 import message_pb2
from gateway.domain.error import GatewayError
from gateway.domain.turn import COMPLETED, INTERRUPTED, is_terminal
from gateway.domain.usage import TokenCounts
from gateway.storage.database import Database
from tests.gateway.usecases.house import SECONDS, Call, House, numbers, story
from tests.gateway.usecases.mortal import Mortal, Seen
from tests.gateway.usecases.rooms import StillClock

FINE = {"STREAM_IN_PROGRESS", "QUEUE_FULL", "INVALID_MESSAGE", "SESSION_NOT_FOUND"}


@dataclass
class Sent:
    """A message that was acknowledged."""

    content: str
    session: str
    turn_id: str
    message_id: str


class Machine(RuleBasedStateMachine):
    """The gateway against a model of it: what was acknowledged, what the provider said, what ended.

    What a rule finds when it runs depends on threads, so a rule that finds nothing to do does nothing: a precondition
    would choose other rules another time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = StillClock()
        self.sent: dict[str, Sent] = {}
        self.asked: Counter[str] = Counter()
        self.said: dict[str, str] = {}
        self.ends: dict[str, int] = {}
        self.seen: list[Seen] = []
        self.keys: dict[str, tuple[str, str, str]] = {}
        self.number = 0
        self.runner.run(self.start())

    async def start(self) -> None:
        self.database = await Database.open(self.folder / "agentspace.db")
        self.store = Mortal(self.database)
        self.house = House(self.store, self.clock)
        self.calls: list[Call] = []
        await self.house.recover()
        await self.tick()

    async def tick(self, steps: int = 3) -> None:
        """Let things happen; not all of them."""
        for _ in range(steps):
            await asyncio.sleep(0)
        for call in self.house.gate.calls[len(self.calls) :]:
            self.calls.append(call)
            self.asked[call.question] += 1
            self.said[call.question] = ""
            assert self.asked[call.question] == 1, "generated twice"
            roles = [message.role for message in call.request.messages]
            assert roles == ["assistant" if index % 2 else "user" for index in range(len(roles))]
        for seen in self.seen:
            seen.take()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do it, unless the process is killed meanwhile."""

        async def bounded() -> Any:
            doing = asyncio.ensure_future(work)
            dying = asyncio.ensure_future(self.store.dead.wait())
            async with asyncio.timeout(SECONDS):
                await asyncio.wait({doing, dying}, return_when=asyncio.FIRST_COMPLETED)
            dying.cancel()
            if not doing.done():
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)
                return None
            await self.tick()
            return doing.result()

        result = self.runner.run(bounded())
        if self.store.dead.is_set():
            self.runner.run(self.restart())
        return result

    async def restart(self) -> None:
        self.store.dead.set()
        for seen in self.seen:
            seen.reader = None
        await self.house.kill()
        await self.database.close()
        await self.start()

    @property
    def open_calls(self) -> list[Call]:
        return [call for call in self.calls if not call.outcome.done() and not call.closed]

    def session(self, pick: int) -> str:
        sessions = sorted({sent.session for sent in self.sent.values()})[:3]
        return sessions[pick % len(sessions)] if sessions else ""

    async def sending(self, content: str, session: str, key: str, on_busy: str) -> None:
        try:
            reader = await self.house.send(content, session, key=key, on_busy=on_busy)
        except GatewayError as error:
            assert error.code in FINE, error
            return
        ack = reader.ack
        sent = Sent(content, ack.session_id, ack.turn_id, ack.message_id)
        assert self.sent.setdefault(ack.turn_id, sent) == sent
        assert ack.duplicate or content not in [s.content for t, s in self.sent.items() if t != ack.turn_id]
        reader.close()

    @rule(pick=st.integers(-1, 6), on_busy=st.sampled_from(["REJECT", "QUEUE", "QUEUE", "INTERRUPT"]))
    def send(self, pick: int, on_busy: str) -> None:
        self.number += 1
        self.run(self.sending(f"question {self.number}", "" if pick < 0 else self.session(pick), "", on_busy))

    @rule(
        key=st.sampled_from("abc"), pick=st.integers(-1, 1), on_busy=st.sampled_from(["REJECT", "QUEUE", "INTERRUPT"])
    )
    def send_with_key(self, key: str, pick: int, on_busy: str) -> None:
        session = "" if pick < 0 else self.session(pick)
        content, session, _ = self.keys.setdefault(key, (f"question with {key}", session, key))
        self.run(self.sending(content, session, key, on_busy))

    @rule(pick=st.integers(0, 3), deltas=st.lists(st.sampled_from(["a ", "bc ", ""]), min_size=1, max_size=4))
    def say(self, pick: int, deltas: list[str]) -> None:
        if not self.open_calls:
            return
        call = self.open_calls[pick % len(self.open_calls)]
        self.said[call.question] += "".join(deltas)
        call.sink.usage(TokenCounts(uncached_input=1, output=len(self.said[call.question])))
        call.say(*deltas)
        self.run(self.tick(0))

    @rule(pick=st.integers(0, 3))
    def end(self, pick: int) -> None:
        if not self.open_calls:
            return
        self.open_calls[pick % len(self.open_calls)].end()
        self.run(self.tick())

    @rule(pick=st.integers(0, 3))
    def fail(self, pick: int) -> None:
        if not self.open_calls:
            return
        self.open_calls[pick % len(self.open_calls)].fail()
        self.run(self.tick())

    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        if self.sent:
            self.run(self.cancelling(list(self.sent)[pick % len(self.sent)]))

    @rule(pick=st.integers(0, 9), deltas=st.integers(0, 3))
    def cancel_queued(self, pick: int, deltas: int) -> None:
        """While the answer ahead of it goes on."""
        queued = [(live, turn) for live in self.house.live if live.running for turn in live.queued]
        if queued:
            live, active = queued[pick % len(queued)]
            assert live.running is not None
            self.run(self.cancelling(active.turn.turn_id, live.running.turn.message_id, deltas))

    async def cancelling(self, turn_id: str, ahead: str = "", deltas: int = 0) -> None:
        doing = asyncio.ensure_future(self.house.cancel.turn(turn_id))
        running = [sent for sent in self.sent.values() if sent.message_id == ahead]
        for call in [call for call in self.open_calls for sent in running if call.question == sent.content]:
            for _ in range(deltas):
                await asyncio.sleep(0)
                if not call.closed:
                    self.said[call.question] += "m"
                    call.say("m")
        assert is_terminal((await doing).state)

    @rule()
    def checkpoint(self) -> None:
        self.run(self.house.checkpoints.save())

    @rule(pick=st.integers(0, 3), fresh=st.booleans())
    def watch(self, pick: int, fresh: bool) -> None:
        if not self.sent:
            return
        seen = Seen(self.session(pick), epoch=0)
        self.run(self.connect(seen, None if fresh else 0))

    async def connect(self, seen: Seen, after_seq: int | None) -> None:
        if seen not in self.seen:
            self.seen.append(seen)
        reader = await self.house.watch(seen.session, seen.epoch, after_seq)
        seen.reader = reader
        seen.epoch = reader.feed.epoch

    @rule(pick=st.integers(0, 9))
    def drop(self, pick: int) -> None:
        connected = [seen for seen in self.seen if seen.reader]
        if not connected:
            return
        seen = connected[pick % len(connected)]
        reader, seen.reader = seen.reader, None
        assert reader is not None
        reader.close()

    @rule(pick=st.integers(0, 9))
    def resume(self, pick: int) -> None:
        dropped = [seen for seen in self.seen if not seen.reader]
        if not dropped:
            return
        seen = dropped[pick % len(dropped)]
        self.run(self.connect(seen, seen.position))

    @rule(pick=st.integers(0, 3))
    def compact(self, pick: int) -> None:
        if not self.sent:
            return

        async def compacting() -> None:
            try:
                await self.house.compact(self.session(pick), "What was said.")
            except GatewayError as error:
                assert error.code in FINE, error

        self.run(compacting())

    @rule(writes=st.integers(0, 3), after=st.booleans())
    def kill_at_a_commit_to_come(self, writes: int, after: bool) -> None:
        self.store.kill_at(writes, after)

    @rule()
    def kill_now(self) -> None:
        self.runner.run(self.restart())

    @rule(steps=st.integers(1, 20))
    def let_time_pass(self, steps: int) -> None:
        self.clock.ms += 1
        self.run(self.tick(steps))

    def teardown(self) -> None:
        try:
            self.store.kill_at(-1, False)
            self.runner.run(self.settle())
            self.runner.run(self.judge())
        finally:
            self.runner.run(self.close())
            self.runner.close()
            shutil.rmtree(self.folder)

    async def close(self) -> None:
        await self.house.kill()
        await self.database.close()

    async def eventually(self, done: Callable[[], bool]) -> None:
        # Spinning would keep the writer's thread from its work.
        async with asyncio.timeout(2 * SECONDS):
            while True:
                if self.store.dead.is_set():
                    await self.restart()
                self.store.answered.clear()
                await self.tick(10)
                if done():
                    return
                await self.store.answered.wait()

    async def settle(self) -> None:
        """Everything that runs or waits comes to its end, and every client resumes and reads to the end."""

        def over() -> bool:
            for call in self.open_calls:
                call.end()
            return not self.house.live.turns

        await self.eventually(over)
        for session in {sent.session for sent in self.sent.values()}:
            # Usable in the end.
            await self.sending(f"last question in {session}", session, "", "REJECT")
            await self.eventually(lambda: bool(self.open_calls))
            self.open_calls[0].end()
            await self.eventually(lambda: not self.house.live.turns)
        for seen in self.seen:
            if seen.reader is None:
                await self.connect(seen, seen.position)
        await self.tick(20)

    async def judge(self) -> None:
        assert self.house.live.turns == {}
        for session in {sent.session for sent in self.sent.values()}:
            await self.judge_session(session)
        for sent in self.sent.values():
            await self.judge_turn(sent)
        for seen in self.seen:
            assert seen.reader is not None
            seen.reader.close()
        await self.tick(20)
        await asyncio.gather(*self.house.tasks)
        assert (list(self.house.live), self.house.tasks) == ([], set())
        await self.judge_ledger()

    async def judge_session(self, session: str) -> None:
        """The log has no holes, and whoever read a part of it read that part."""
        stored = await self.database.read(lambda tx: tx.sessions.get(session))
        assert stored is not None
        # The beginning of what was compacted would be a reset.
        start = 0 if stored.generation == 1 else 1
        whole = await (await self.house.watch(session, stored.epoch, start)).upto(stored.last_seq)
        assert numbers(whole.items) == list(range(start + 1, stored.last_seq + 1))
        whole.close()
        for seen in self.seen:
            if seen.session != session:
                continue
            await self.eventually(lambda seen=seen: (seen.epoch, seen.position) >= (stored.epoch, stored.last_seq))
            assert seen.begin <= seen.position == stored.last_seq
            if seen.begin < stored.last_seq:
                rest = await (await self.house.watch(session, stored.epoch, seen.begin)).upto(stored.last_seq)
                rest.close()
                assert story(seen.items) == story(rest.items)
        contents = [m.blocks[0].text for m in await self.database.read(lambda tx: self.all_messages(tx, session))]
        for sent in self.sent.values():
            if sent.session == session:
                assert contents.count(sent.content) == 1, "an acknowledged message was lost or doubled"

    def all_messages(self, tx: Any, session: str) -> list[Any]:
        found: dict[str, Any] = {}
        for generation in range(1, tx.sessions.get(session).generation + 1):
            for message in tx.messages.page(session, after=None, limit=9999, newest_first=False, generation=generation)[
                0
            ]:
                if message.role == message_pb2.ROLE_USER:
                    found[message.message_id] = message
        return list(found.values())

    async def judge_turn(self, sent: Sent) -> None:
        turn = await self.house.turns.get(sent.turn_id)
        assert is_terminal(turn.state)
        assert self.ends.setdefault(turn.turn_id, turn.state) == turn.state
        answer = await self.database.read(lambda tx: tx.turns.answer(turn.turn_id))
        text = "".join(block.text for block in answer.content) if answer else ""
        said = self.said.get(sent.content, "")
        assert text == said if turn.state == COMPLETED else said.startswith(text)
        assert turn.state == INTERRUPTED or text == said

    async def judge_ledger(self) -> None:
        rows = await self.database.read(lambda tx: tx.usage.page(None, after=None, limit=9999))
        totals = await self.database.read(lambda tx: tx.usage.totals(None))
        assert sum(total.input_tokens for total in totals.values()) == sum(row.counts.input for row in rows)
        assert sum(total.output_tokens for total in totals.values()) == sum(row.counts.output for row in rows)
        assert max(Counter(row.turn_id for row in rows).values(), default=1) == 1
        for turn_id, state in self.ends.items():
            count = sum(row.turn_id == turn_id for row in rows)
            assert count == 1 if state == COMPLETED else count <= 1


def check(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=examples < 100,
        ),
    )


@pytest.mark.parametrize(
    ("examples", "steps"),
    [
        pytest.param(60, 40, id="few"),
        pytest.param(1500, 80, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_no_interleaving_breaks_a_promise(examples: int, steps: int) -> None:
    check(examples, steps)
