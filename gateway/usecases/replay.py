"""Rebuilds a stretch of a session's log from storage, event for event as it was announced. Used by watch_session for
cursors that are behind what memory holds.
"""

from gateway.domain import turn_event
from gateway.domain.session_log import Entry, Kind, SessionLog
from gateway.domain.turn import QUEUE_DEPTH, Turn
from gateway.domain.turn_log import TurnLog
from gateway.usecases.ports import StoredAnswer, Transaction

TURNS_AT_ONCE = 4
TURNS_AT_A_TIME = QUEUE_DEPTH + 1
"""Most turns of a session that are unfinished at one time: one runs and the others wait."""


def replay(tx: Transaction, session_id: str, epoch: int, after_seq: int, floor: int) -> SessionLog:
    """The events after `after_seq` up to at most `floor`, from the next few turns that have any."""
    turns = tx.turns.after(session_id, after_seq, TURNS_AT_ONCE + TURNS_AT_A_TIME + 1)
    # Turns that began before and go on after: without all of them there would be no way forward.
    count = sum(_first(turn) <= after_seq for turn in turns) + TURNS_AT_ONCE
    last = floor
    if len(turns) > count:
        # Events before the first one of a turn that is left for later all belong to the turns at hand.
        last = min(floor, _first(turns[count]) - 1)
    entries = [entry for turn in turns[:count] for entry in entries_of(tx, turn)]
    entries = sorted((e for e in entries if e.first_seq <= last), key=lambda entry: entry.first_seq)
    return SessionLog.restore(epoch, entries, last)


def _first(turn: Turn) -> int:
    return turn.positions.message or turn.positions.started or turn.positions.ended


def entries_of(tx: Transaction, turn: Turn) -> list[Entry]:
    """The log entries of one stored turn, as far as it has positions."""
    positions = turn.positions
    entries = []
    if positions.message and (question := tx.messages.get(turn.session_id, turn.message_id)) is not None:
        entries.append(Entry(positions.message, 1, Kind.MESSAGE, turn.turn_id, question=question))
    if positions.started:
        entries.append(Entry(positions.started, 1, Kind.STARTED, turn.turn_id, turn_event.started(turn)))
    if positions.deltas:
        answer = tx.turns.answer(turn.turn_id) or StoredAnswer((), ())
        log = TurnLog.restore(turn.turn_id, turn.message_id, turn.model, answer.content, answer.chunk_lengths)
        chunk = 0
        for first, count in positions.deltas:
            entries.append(Entry(first, count, Kind.DELTAS, turn.turn_id, log=log, first_chunk=chunk))
            chunk += count
    if positions.ended:
        entries.append(Entry(positions.ended, 1, Kind.ENDED, turn.turn_id, turn_event.ended(turn)))
    return entries
