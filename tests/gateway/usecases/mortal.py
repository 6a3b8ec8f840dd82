"""What a kill needs in a test: a store that dies at a commit, and a client that outlives the gateway."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentspace.v1 import turn_pb2
from gateway.storage.database import Database
from tests.gateway.usecases.house import Reader, numbers


class Mortal:
    """A store whose process can be killed just before or just after a commit: then nothing ever answers again."""

    def __init__(self, store: Database) -> None:
        self.store = store
        self.dead = asyncio.Event()
        self.answered = asyncio.Event()
        self._countdown = -1
        self._after = False

    def kill_at(self, writes: int, after: bool) -> None:
        self._countdown, self._after = writes, after

    async def write(self, work: Callable[[Any], Any]) -> Any:
        dying = self._countdown == 0
        self._countdown -= 1
        if not self.dead.is_set() and (not dying or self._after):
            answer = await self.store.write(work)
            self.answered.set()
            if not dying and not self.dead.is_set():
                return answer
        self.dead.set()
        self.answered.set()
        return await asyncio.Event().wait()

    async def read(self, work: Callable[[Any], Any]) -> Any:
        if self.dead.is_set():
            await asyncio.Event().wait()
        answer = await self.store.read(work)
        self.answered.set()
        return answer

    async def check(self) -> None:
        await self.store.check()


@dataclass(eq=False)
class Seen:
    """What a client has of a session: everything it was given since its last beginning, over all its connections."""

    session: str
    items: list[Any] = field(default_factory=list)
    epoch: int = 1
    begin: int = 0
    reader: Reader | None = None

    @property
    def position(self) -> int:
        return numbers(self.items)[-1] if numbers(self.items) else self.begin

    def take(self) -> None:
        if self.reader is None:
            return
        while new := self.reader.take():
            for item in new:
                if isinstance(item, turn_pb2.SessionSnapshot):
                    self.items, self.epoch, self.begin = [], item.epoch, item.seq
                else:
                    self.items.append(item)
        got = numbers(self.items)
        assert got == list(range(self.begin + 1, self.begin + 1 + len(got))), "a gap or a repeat"
