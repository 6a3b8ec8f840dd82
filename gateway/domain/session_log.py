"""SessionLog: the order of a session's events. Gives every event its sequence number and reads any stretch of them.

An entry is a run of events of one turn with consecutive numbers. Deltas extend the newest entry while nothing else of
the session comes between, so a whole answer is one entry. run_turn and send_message write, watch_session reads.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from agentspace.v1 import error_pb2, turn_pb2
from gateway.domain.message import Message
from gateway.domain.turn import TurnPositions
from gateway.domain.turn_event import message_committed
from gateway.domain.turn_log import TEXT, THINKING, Block, TurnLog

Event = (
    turn_pb2.MessageCommitted
    | turn_pb2.TurnStarted
    | turn_pb2.TextDelta
    | turn_pb2.ThinkingDelta
    | turn_pb2.ToolDelta
    | turn_pb2.TurnEnded
    | error_pb2.Error
)
"""A logged event as the contract has it, with its epoch and sequence number."""

MERGE_LIMIT = 16 * 1024
"""Characters of neighbouring deltas that travel as one."""


class Kind(Enum):
    """What the events of an entry are."""

    MESSAGE = auto()
    STARTED = auto()
    DELTAS = auto()
    ENDED = auto()


@dataclass(slots=True)
class Entry:
    """Events `first_seq` to `first_seq + count - 1`. `event` is the contract message of a lone event, without position;
    that of a `question` is made when somebody wants it, since its sender does not. Deltas come from `log`, from
    `first_chunk` on."""

    first_seq: int
    count: int
    kind: Kind
    turn_id: str
    event: turn_pb2.MessageCommitted | turn_pb2.TurnStarted | turn_pb2.TurnEnded | error_pb2.Error | None = None
    log: TurnLog | None = None
    first_chunk: int = 0
    question: Message | None = None


class SessionLog:
    """The events of a session that are in memory: all after `floor`, up to `last_seq`."""

    __slots__ = ("_firsts", "_memo", "entries", "epoch", "floor", "last_seq")

    def __init__(self, epoch: int, last_seq: int) -> None:
        self.epoch = epoch
        self.floor = last_seq
        self.last_seq = last_seq
        self.entries: list[Entry] = []
        self._firsts: list[int] = []
        self._memo: tuple[tuple[int, int, int], list[Event]] = ((0, 0, 0), [])

    @classmethod
    def restore(cls, epoch: int, entries: Sequence[Entry], last_seq: int) -> "SessionLog":
        """A stretch of a stored log: `entries` in order, of which events up to `last_seq` count."""
        log = cls(epoch, entries[0].first_seq - 1 if entries else last_seq)
        for entry in entries:
            entry.count = min(entry.count, last_seq + 1 - entry.first_seq)
            log._add(entry)
        log.last_seq = last_seq
        return log

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._firsts.append(entry.first_seq)
        self.last_seq = entry.first_seq + entry.count - 1

    def append_message(self, question: Message) -> int:
        """A user message was committed. Returns its sequence number."""
        self._add(Entry(self.last_seq + 1, 1, Kind.MESSAGE, question.turn_id, question=question))
        return self.last_seq

    def append_started(self, event: turn_pb2.TurnStarted) -> int:
        """A turn left the queue. Returns its sequence number."""
        self._add(Entry(self.last_seq + 1, 1, Kind.STARTED, event.turn_id, event))
        return self.last_seq

    def append_ended(self, event: turn_pb2.TurnEnded | error_pb2.Error) -> int:
        """A turn ended. Returns its sequence number."""
        self._add(Entry(self.last_seq + 1, 1, Kind.ENDED, event.turn_id, event))
        return self.last_seq

    def append_deltas(self, log: TurnLog, count: int = 1) -> None:
        """The newest `count` chunks of `log` are events."""
        if self.entries:
            newest = self.entries[-1]
            if newest.log is log:
                newest.count += count
                self.last_seq += count
                return
        first = self.last_seq + 1
        self._add(Entry(first, count, Kind.DELTAS, log.turn_id, log=log, first_chunk=len(log.chunks) - count))

    def positions(self, turn_id: str, ended: int = 0) -> TurnPositions:
        """The sequence numbers of a turn's events in memory; `ended` is that of an end that is not there yet."""
        lone: dict[Kind, int] = {}
        deltas: list[tuple[int, int]] = []
        for entry in self.entries:
            if entry.turn_id == turn_id:
                if entry.kind is Kind.DELTAS:
                    deltas.append((entry.first_seq, entry.count))
                else:
                    lone[entry.kind] = entry.first_seq
        return TurnPositions(
            lone.get(Kind.MESSAGE, 0), lone.get(Kind.STARTED, 0), tuple(deltas), lone.get(Kind.ENDED, ended)
        )

    def drop_before(self, seq: int) -> None:
        """Forget the entries that end before `seq`; storage has them."""
        keep = 0
        while keep < len(self.entries) and self.entries[keep].first_seq + self.entries[keep].count <= seq:
            keep += 1
        if keep:
            last = self.entries[keep - 1]
            self.floor = last.first_seq + last.count - 1
            del self.entries[:keep]
            del self._firsts[:keep]

    def read(self, after_seq: int, limit: int) -> list[Event]:
        """Every event after `after_seq` (which must not be below `floor`) in order, neighbouring deltas merged, until
        about `limit` characters of text have been given. Watchers at the same place get the same list: do not change
        it."""
        key = (after_seq, self.last_seq, limit)
        if self._memo[0] != key:
            if after_seq == self.last_seq - 1 and (newest := self.entries[-1]).log is not None:
                # One new delta, by far the most frequent question.
                log, seq = newest.log, self.last_seq
                chunk = newest.first_chunk + newest.count - 1
                block = log.blocks[-1] if chunk >= log.blocks[-1].first_chunk else log.block_of(chunk)
                found = [self._delta(log, block, seq, seq, log.chunks[chunk])]
            else:
                found = list(self._read(after_seq, limit))
            self._memo = (key, found)
        return self._memo[1]

    def _read(self, after_seq: int, limit: int) -> Iterator[Event]:
        index = max(bisect_right(self._firsts, after_seq + 1) - 1, 0)
        while index < len(self.entries) and limit > 0:
            entry = self.entries[index]
            skip = max(after_seq + 1 - entry.first_seq, 0)
            if skip < entry.count:
                for event in self._events(entry, skip):
                    yield event
                    limit -= len(event.delta) if isinstance(event, _DELTAS) else event.ByteSize()
                    if limit <= 0:
                        break
            index += 1

    def _events(self, entry: Entry, skip: int) -> Iterator[Event]:
        if entry.question is not None and entry.event is None:
            entry.event = message_committed(entry.question)
        if entry.event is not None:
            event = entry.event
            event.epoch = self.epoch
            event.seq = entry.first_seq
            yield event
            return
        log = entry.log
        assert log is not None
        base = entry.first_seq - entry.first_chunk
        start, stop = entry.first_chunk + skip, entry.first_chunk + entry.count
        for block, first, end, text in log.pieces(start, stop, MERGE_LIMIT):
            yield self._delta(log, block, base + first, base + end - 1, text)

    def _delta(self, log: TurnLog, block: Block, from_seq: int, seq: int, text: str) -> Event:
        kind = turn_pb2.TextDelta if block.kind == TEXT else turn_pb2.ThinkingDelta
        if block.kind in (TEXT, THINKING):
            return kind(
                delta=text, turn_id=log.turn_id, epoch=self.epoch, from_seq=from_seq, seq=seq, block=block.index
            )
        return turn_pb2.ToolDelta(
            delta=text,
            turn_id=log.turn_id,
            epoch=self.epoch,
            from_seq=from_seq,
            seq=seq,
            block=block.index,
            tool_use_id=block.tool_use_id,
            tool_name=block.tool_name,
        )


_DELTAS = (turn_pb2.TextDelta, turn_pb2.ThinkingDelta, turn_pb2.ToolDelta)
