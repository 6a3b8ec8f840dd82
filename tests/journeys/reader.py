"""What one client saw of a session, checked as it comes: no event twice, none missing, none out of order.

Used by the journeys about resuming. A reader keeps its position over connections, as a client would.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.journeys.doors import ENDS, Door, Frame, GoneError


@dataclass(slots=True)
class Reader:
    """One client's knowledge. `turn` is the one it sent; `text` and `ends` are by turn."""

    session: str
    epoch: int = 0
    seq: int | None = None
    turn: str = ""
    text: dict[str, str] = field(default_factory=dict)
    ends: dict[str, Frame] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    resets: list[Frame] = field(default_factory=list)
    snapshots: list[Frame] = field(default_factory=list)

    def position(self) -> dict[str, Any]:
        """The fields of session.watch that say where to go on."""
        return {} if self.seq is None else {"epoch": self.epoch, "afterSeq": self.seq}

    def take(self, frame: Frame) -> None:
        """Note a frame. Fails on a gap, a repetition, or an event of another epoch."""
        kind = frame["type"]
        if kind in ("heartbeat", "session.created"):
            return
        if kind == "session.reset":
            self.resets.append(frame)
            return
        if kind == "session.snapshot":
            assert self.seq is None or self.resets, "a snapshot comes after a reset"
            self._begin_at(frame)
            return
        if kind == "chat.accepted":
            self.epoch, self.seq, self.turn = frame["epoch"], frame["seq"], frame["turnId"]
            return
        assert frame["epoch"] == self.epoch, (self, frame)
        first = frame.get("fromSeq", frame["seq"])
        assert self.seq is not None
        assert first == self.seq + 1, f"expected event {self.seq + 1}: {frame}"
        assert frame["seq"] >= first
        self.seq = frame["seq"]
        turn = frame["turnId"]
        assert turn not in self.ends, "nothing follows a turn's end"
        if kind == "chat.message":
            self.asked.append(turn)
        elif kind == "chat.stream.start":
            self.started.append(turn)
            self.text[turn] = ""
        elif kind == "chat.stream.delta":
            self.text[turn] += frame["delta"]
        elif kind in ENDS:
            self.ends[turn] = frame

    def _begin_at(self, snapshot: Frame) -> None:
        self.snapshots.append(snapshot)
        self.epoch, self.seq = snapshot["epoch"], snapshot["seq"]
        if active := snapshot.get("activeTurn"):
            self.text[active["turnId"]] = "".join(b["text"] for b in active["blocks"] if b["kind"] == "text")
        for message in snapshot["messages"]:
            if message["role"] == "assistant":
                self.text[message["turnId"]] = "".join(b["text"] for b in message["blocks"] if b["kind"] == "text")

    async def watch(self, door: Door, *, frames: int | None = None, until: str = "") -> bool:
        """Watch on from here until `frames` frames came, or the turn `until` ended (True), or the connection went."""
        try:
            async with door.open("session.watch", sessionId=self.session, **self.position()) as stream:
                while frames is None or frames > 0:
                    if until in self.ends:
                        return True
                    self.take(await stream.next())
                    frames = None if frames is None else frames - 1
                await stream.drop()
        except GoneError:
            pass
        return until in self.ends
