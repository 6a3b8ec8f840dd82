"""Checkpoints: what a kill -9 can cost. About every 250 ms, or sooner when a turn has 16 KiB unsaved, the new deltas
of all running turns are stored in one write. Deltas never wait for it.
"""

import asyncio
import logging
from dataclasses import replace

from agentspace.v1 import usage_pb2
from gateway.domain.error import GatewayError
from gateway.domain.message import ContentBlock
from gateway.domain.turn import TurnPositions
from gateway.domain.turn_log import TurnLog
from gateway.domain.usage import Charge, TurnUsage
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

    def grown(self, active: ActiveTurn) -> None:
        """A turn's log has grown."""
        if active.log.characters - active.saved_characters > UNSAVED_CHARACTERS:
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
            await self.save()

    async def save(self) -> None:
        """Store what every running turn has gained since its last checkpoint. A failure is logged and made good by the
        next."""
        saves: list[tuple[ActiveTurn, int, int]] = []
        works: list[tuple[Checkpoint, ActiveTurn, list[tuple[str, TurnPositions]]]] = []
        for live in self._live:
            active = live.running
            if active is None or active.ending or len(active.log.chunks) == active.saved_chunks:
                continue
            works.append((_gain(live, active), active, _waiting(live)))
            saves.append((active, active.saved_chunks, active.saved_characters))
            active.saved_chunks, active.saved_characters = len(active.log.chunks), active.log.characters
        if not works:
            return
        usages = [(w[1].turn, w[1].counts) for w in works]

        def work(tx: Transaction) -> None:
            for (checkpoint, _, waiting), (turn, counts) in zip(works, usages, strict=True):
                if counts is not None:
                    usage = TurnUsage(counts, Charge(priced=False), usage_pb2.USAGE_STATUS_PARTIAL, 1)
                    tx.turns.update(replace(turn, usage=usage, positions=checkpoint.positions))
                tx.turns.append_checkpoint(checkpoint)
                for turn_id, positions in waiting:
                    tx.turns.set_positions(turn_id, positions)

        try:
            await self._store.write(work)
        except GatewayError as error:
            _logger.warning("checkpoint failed: %s", error.message)
            for active, chunks, characters in saves:
                active.saved_chunks, active.saved_characters = chunks, characters


def _gain(live: LiveSession, active: ActiveTurn) -> Checkpoint:
    return Checkpoint(
        active.turn.turn_id,
        tuple(_new_blocks(active.log, active.saved_chunks)),
        live.log.positions(active.turn.turn_id),
    )


def _waiting(live: LiveSession) -> list[tuple[str, TurnPositions]]:
    return [(queued.turn.turn_id, live.log.positions(queued.turn.turn_id)) for queued in live.queued]


def _new_blocks(log: TurnLog, saved: int) -> list[tuple[int, ContentBlock, tuple[int, ...]]]:
    """The blocks with chunks from `saved` on, each with only its new text and the lengths of its new chunks."""
    new = []
    for block, start, stop, text in log.pieces(saved, len(log.chunks), limit=log.characters + 1):
        lengths = tuple(len(chunk) for chunk in log.chunks[start:stop])
        content = ContentBlock(block.kind, text, block.tool_use_id, block.tool_name, block.signature, block.complete)
        new.append((block.index, content, lengths))
    return new
