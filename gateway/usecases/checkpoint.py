"""Checkpoints: what a kill -9 can cost. About every 250 ms, or sooner when a turn has 16 KiB unsaved, the new deltas
of all running turns are stored in one write, and what the provider told of their use. Deltas never wait for it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from agentspace.v1 import error_pb2, usage_pb2
from gateway.domain.error import GatewayError
from gateway.domain.message import ContentBlock
from gateway.domain.turn_log import Block, TurnLog
from gateway.domain.usage import Charge, TokenCounts, TurnUsage
from gateway.usecases.live_sessions import ActiveTurn, LiveSession, LiveSessions
from gateway.usecases.ports import Checkpoint, Store, Transaction

INTERVAL_SECONDS = 0.25
UNSAVED_CHARACTERS = 16 * 1024

_logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoint writer. `run` is one task of the application."""

    def __init__(self, store: Store, live: LiveSessions) -> None:
        self._store = store
        self._live = live
        self._full = asyncio.Event()
        self._lock = asyncio.Lock()

    def hurry(self) -> None:
        """A turn has more than UNSAVED_CHARACTERS that are not saved."""
        self._full.set()

    async def run(self) -> None:
        """Save for ever."""
        while True:
            try:
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await self._full.wait()
            except TimeoutError:
                pass
            self._full.clear()
            if not await self.save():
                # Nobody hurries a database that refuses.
                await asyncio.sleep(INTERVAL_SECONDS)

    async def save(self) -> bool:
        """Store what every running turn has gained since its last checkpoint. A failure, False, is logged and made good
        by the next."""
        async with self._lock:
            gained = [live for live in self._live if _has_gained(live)]
            try:
                await self._store_gains(gained)
                return True
            except GatewayError as error:
                _logger.warning("checkpoint failed: %s", error.message)
                if error.reason == error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE:
                    return False
            except Exception:  # a bug of one turn must not be the end of all checkpoints
                _logger.exception("checkpoint failed")
            # One of them cannot be stored, which must not keep the others from it.
            for live in filter(_has_gained, gained):
                try:
                    await self._store_gains([live])
                except Exception:
                    _logger.exception("checkpoint of session %s failed", live.session_id)
            return False

    async def save_with(self, live: LiveSession, work: Callable[[Transaction], None]) -> None:
        """Do `work` and store what the session's running turn has gained, so that every event up to now is stored
        together with it. Raises STORAGE_UNAVAILABLE."""
        async with self._lock:
            await self._store_gains([live], work)

    async def _store_gains(
        self, lives: Sequence[LiveSession], also: Callable[[Transaction], None] | None = None
    ) -> None:
        gains = [_Gain(live, live.running) for live in lives if live.running is not None]
        if not gains and also is None:
            return

        def work(tx: Transaction) -> None:
            tx.turns.append_checkpoints([gain.checkpoint for gain in gains])
            for gain in gains:
                for turn_id, positions in gain.positions:
                    tx.turns.set_positions(turn_id, positions)
            if also is not None:
                also(tx)

        try:
            await self._store.write(work)
        except Exception:
            for gain in gains:
                gain.take_back()
            raise
        for gain in gains:
            gain.live.unstored = [end for end in gain.live.unstored if end not in gain.positions]


class _Gain:
    """What a session has gained since it was last stored; counts as stored from the beginning on."""

    def __init__(self, live: LiveSession, active: ActiveTurn) -> None:
        self.live = live
        self._active = active
        self._before = _saved(active)
        turn, log, usage = active.turn, active.log, active.turn.usage
        if active.counts is not None:
            usage = TurnUsage(active.counts, Charge(priced=False), usage_pb2.USAGE_STATUS_PARTIAL, 1)
        blocks = tuple(_new_blocks(log, active.saved_chunks, active.saved_blocks))
        self.checkpoint = Checkpoint(turn.turn_id, blocks, live.log.positions(turn.turn_id), usage)
        waiting = [(queued.turn.turn_id, live.log.positions(queued.turn.turn_id)) for queued in live.queued]
        self.positions = [*waiting, *live.unstored]
        active.saved_chunks, active.saved_characters = len(log.chunks), log.characters
        active.saved_blocks, active.saved_counts = log.complete_blocks, active.counts

    def take_back(self) -> None:
        """It was not stored."""
        active = self._active
        active.saved_chunks, active.saved_characters, active.saved_blocks, active.saved_counts = self._before


def _saved(active: ActiveTurn) -> tuple[int, int, int, TokenCounts | None]:
    return active.saved_chunks, active.saved_characters, active.saved_blocks, active.saved_counts


def _has_gained(live: LiveSession) -> bool:
    active = live.running
    if active is None or active.ending:
        return False
    log = active.log
    return (
        len(log.chunks) > active.saved_chunks
        or active.counts is not active.saved_counts
        or log.complete_blocks > active.saved_blocks
    )


def _new_blocks(log: TurnLog, chunks: int, blocks: int) -> list[tuple[int, ContentBlock, tuple[int, ...]]]:
    """The blocks with chunks from `chunks` on, each with only its new text and the lengths of its new chunks; and those
    that are complete, from `blocks` on."""
    gained: dict[int, tuple[str, tuple[int, ...]]] = {
        block.index: ("", ()) for block in log.blocks[blocks : log.complete_blocks]
    }
    for block, start, stop, text in log.pieces(chunks, len(log.chunks), limit=log.characters + 1):
        gained[block.index] = text, tuple(len(chunk) for chunk in log.chunks[start:stop])
    return [(index, _content(log.blocks[index], text), lengths) for index, (text, lengths) in sorted(gained.items())]


def _content(block: Block, text: str) -> ContentBlock:
    return ContentBlock(block.kind, text, block.tool_use_id, block.tool_name, block.signature, block.complete)
