"""A server process that `up` started: its ready line, its end, and no orphan. Called by up.

A child gets a pipe as its stdin and is told --exit-with-stdin: however the parent dies, the pipe closes and the child
stops. It runs in a process session of its own, so that Ctrl-C reaches only the parent, which stops both in order.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any

START_SECONDS = 30.0
REFUSED = 2
"""The exit code of a server that does not accept its settings."""


class ChildError(Exception):
    """The child did not become ready; the message says why."""


class RefusedError(ChildError):
    """The child does not accept its settings; it has said why on stderr, in one line."""


class Child:
    """One running server. `name` is its module: "gateway" or "bridge"."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self._process = process
        self._ended = asyncio.create_task(self._end())

    @classmethod
    async def start(cls, name: str, *arguments: str) -> "Child":
        """Start `python -m name arguments`. Its log goes where ours goes, to stderr."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", name, *arguments, "--exit-with-stdin", stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        return cls(name, process)

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self) -> dict[str, Any]:
        """Its ready line. Raises ChildError if it ends or takes too long instead, RefusedError for its settings."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                while said := await self._process.stdout.readline():
                    try:
                        event = json.loads(said)
                    except ValueError:
                        continue
                    if isinstance(event, dict) and event.get("event") == "ready":
                        return event
        except TimeoutError:
            raise ChildError(f"the {self.name} was not ready after {START_SECONDS:.0f} s") from None
        code = await self.ended()
        if code == REFUSED:
            raise RefusedError(f"the {self.name} does not accept its settings")
        raise ChildError(f"the {self.name} did not start (exit code {code}); its log is above")

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        return await asyncio.shield(self._ended)

    async def stop(self, patience: float) -> None:
        """Ask it to stop; kill it if it has not after `patience` seconds."""
        if self.running:
            self._process.terminate()
        try:
            async with asyncio.timeout(patience):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()

    def kill(self) -> None:
        """End it at once."""
        if self.running:
            self._process.kill()

    async def _end(self) -> int:
        return await self._process.wait()
