"""ReadTurns: gets, lists and waits for turns. Called by rpc's chat service."""

import asyncio

from gateway.domain.error import invalid, turn_not_found
from gateway.domain.ids import resolve_session
from gateway.domain.turn import Turn
from gateway.usecases.find_session import living_session
from gateway.usecases.live_sessions import LiveSessions
from gateway.usecases.paging import Page, page, page_size, read_token
from gateway.usecases.ports import Store, Transaction

DEFAULT_WAIT_MS = 30_000
LONGEST_WAIT_MS = 300_000


class ReadTurns:
    """Reads turns, from memory while they live."""

    def __init__(self, store: Store, live: LiveSessions) -> None:
        self._store = store
        self._live = live

    async def get(self, turn_id: str) -> Turn:
        """Raises TURN_NOT_FOUND."""
        found = self._live.turns.get(turn_id)
        if found is not None:
            return found[1].turn
        turn = await self._store.read(lambda tx: tx.turns.get(turn_id))
        if turn is None:
            raise turn_not_found(turn_id)
        return turn

    async def wait(self, turn_id: str, timeout_ms: int) -> Turn:
        """The turn when it has ended, or as it is after `timeout_ms` (0: 30 s; at most 300 s)."""
        if timeout_ms < 0:
            raise invalid("timeoutMs", "0 or more")
        found = self._live.turns.get(turn_id)
        if found is not None:
            try:
                async with asyncio.timeout(min(timeout_ms or DEFAULT_WAIT_MS, LONGEST_WAIT_MS) / 1000):
                    await found[1].ended.wait()
            except TimeoutError:
                pass
            return found[1].turn
        return await self.get(turn_id)

    async def list_turns(self, reference: str, size: int, token: str) -> Page[Turn]:
        """A page of a session's turns, newest first. Raises SESSION_NOT_FOUND or INVALID_MESSAGE."""
        session_id = resolve_session(reference)
        limit = page_size(size)
        listing = f"turns:{session_id}"
        place = read_token(token, listing, int, str)
        after = None if place is None else (int(place[0]), str(place[1]))

        def work(tx: Transaction) -> list[Turn]:
            return tx.turns.page(living_session(tx, session_id).session_id, after=after, limit=limit + 1)

        found = await self._store.read(work)
        return page(found, limit, listing, lambda turn: (turn.created_ms, turn.turn_id))
