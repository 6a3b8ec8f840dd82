"""How long to wait before trying again, and when to give up. Used by both resume loops."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from agentspace.client.errors import AgentSpaceError

FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0


class Pace:
    """Delays that double from 0.1 s to 2 s, with jitter; gives up after `patience` seconds without progress."""

    def __init__(
        self,
        patience: float,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._patience = patience
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter
        self._delay = FIRST_DELAY
        self._failing_since: float | None = None

    def progress(self) -> None:
        """Something new arrived: the next failure starts from the shortest delay."""
        self._delay = FIRST_DELAY
        self._failing_since = None

    async def wait(self, error: AgentSpaceError) -> None:
        """Wait before the next attempt. Raises `error` when patience has run out."""
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        delay = max(self._delay * (0.5 + self._jitter() / 2), error.retry_after or 0.0)
        if now + delay - self._failing_since > self._patience:
            raise error
        await self._sleep(delay)
        self._delay = min(self._delay * 2, LONGEST_DELAY)
