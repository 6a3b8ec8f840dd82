"""CancelTurn: ends turns, running or queued, and answers when their end is stored. Idempotent. While the database
refuses, the answer is STORAGE_UNAVAILABLE: a running turn ends all the same, a queued one goes on waiting.

Called by rpc's chat service, by send_message (onBusy interrupt), by delete_session and by the pulse (nobody watches
any more).
"""

import asyncio
from collections.abc import Sequence

from gateway.domain.error import turn_not_found
from gateway.domain.turn import CANCELLED, Turn
from gateway.usecases import live_sessions
from gateway.usecases.live_sessions import ActiveTurn, LiveSession, LiveSessions, Stopped, held, stuck
from gateway.usecases.ports import Store
from gateway.usecases.run_turn import RunTurn


class CancelTurn:
    """Cancels by turn or by session."""

    def __init__(self, store: Store, live: LiveSessions, run: RunTurn) -> None:
        self._store = store
        self._live = live
        self._run = run

    async def turn(self, turn_id: str) -> Turn:
        """End the turn and return it in its terminal state. Raises TURN_NOT_FOUND."""
        found = self._live.turns.get(turn_id)
        if found is not None:
            live, active = found
            await self._end(live, [active], Stopped(CANCELLED))
            return active.turn
        stored = await self._store.read(lambda tx: tx.turns.get(turn_id))
        if stored is None:
            raise turn_not_found(turn_id)
        return stored

    async def session(self, live: LiveSession) -> list[Turn]:
        """End the session's queued turns and then its running one, so that none of them starts in between."""
        actives = live.active()
        await self._end(live, actives, Stopped(CANCELLED))
        return [active.turn for active in actives]

    async def _end(self, live: LiveSession, actives: Sequence[ActiveTurn], reason: Stopped) -> None:
        waiting = [active for active in actives if active in live.queued]
        try:
            if waiting:
                async with held(live):
                    for active in waiting:
                        if active in live.queued:
                            await self._run.finish(live, active, reason.state, error=reason.error, patient=False)
        finally:
            for active in actives:
                self._run.stop(active, reason)
        try:
            async with asyncio.timeout(live_sessions.LOCK_SECONDS):
                for active in actives:
                    await active.ended.wait()
        except TimeoutError:
            raise stuck() from None
