"""The wall clock is set back an hour, and forth again, while the gateway runs."""

import asyncio
from pathlib import Path

import pytest

from tests.fixtures.script import text
from tests.fixtures.stack import ROOT, running_stack
from tests.fixtures.upstream import Upstream
from tests.journeys.conftest import House
from tests.journeys.doors import DOORS, ENDS, door, hear, said

# Python runs a module of this name first: what the gateway takes for the time is moved by what a file says.
CLOCK = """
import os, time
def moved(real, unit):
    def now():
        with open(os.environ["OFFSET_FILE"]) as file:
            return real() + type(real())(float(file.read()) * unit)
    return now
time.time, time.time_ns = moved(time.time, 1), moved(time.time_ns, 10**9)
"""
HOUR = 3600


@pytest.mark.requirement("clock.moves")
async def test_clock_set_back_during_a_turn(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CLOCK, encoding="ascii")
    offset = tmp_path / "offset"
    offset.write_text("0", encoding="ascii")
    seen = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "OFFSET_FILE": str(offset)}
    async with Upstream().serve() as upstream, running_stack(upstream.url, **seen) as stack:
        house = House(upstream, stack)
        for name in DOORS:
            offset.write_text("0", encoding="ascii")
            way = door(name, stack)
            gates = {1: asyncio.Event(), 2: asyncio.Event()}
            upstream.play(text("a", "b", "c", gates=gates))
            keyed = {"content": f"clock {name}", "idempotencyKey": f"clock {name}"}
            async with way.open("chat.send", **keyed) as stream:
                frames = await hear(stream, "chat.stream.delta")
                session = frames[0]["sessionId"]
                offset.write_text(str(-HOUR), encoding="ascii")
                gates[1].set()
                frames += await hear(stream, "chat.stream.delta")
                offset.write_text(str(HOUR), encoding="ascii")
                gates[2].set()
                frames += await hear(stream, *ENDS)
            assert (said(frames), frames[-1]["type"]) == ("abc", "chat.stream.end")
            offset.write_text(str(-HOUR), encoding="ascii")
            for number in range(3):
                async with way.open("chat.send", content=f"{number} {name}", sessionId=session) as stream:
                    assert (await hear(stream, *ENDS))[-1]["type"] == "chat.stream.end"
            async with way.open("chat.send", **keyed) as stream:
                again = await hear(stream, *ENDS)
            assert again[0]["duplicate"]
            assert said(again) == "abc"
            asked = [f"clock {name}", *(f"{number} {name}" for number in range(3))]
            history = (await way.ask("session.history", sessionId=session))["messages"]
            assert [m["blocks"][0]["text"] for m in history if m["role"] == "user"] == asked
            assert [text_ for role, text_ in house.calls(asked[-1])[0].said() if role == "user"] == asked
            page = await way.ask("turn.list", sessionId=session, pageSize=2)
            rest = await way.ask("turn.list", sessionId=session, pageSize=2, pageToken=page["nextPageToken"])
            assert len({turn["turnId"] for turn in [*page["turns"], *rest["turns"]]}) == 4
