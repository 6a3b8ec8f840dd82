"""Turns in a transaction: the port `Turns` over turns and turn_chunks. Called by use cases, through transaction."""

from collections.abc import Sequence

from sqlalchemy import delete, insert, literal_column, null, select, tuple_, update

from gateway.domain.message import ContentBlock
from gateway.domain.turn import Turn, TurnPositions
from gateway.domain.turn_log import TEXT
from gateway.storage.numbers import Numbers
from gateway.storage.packing import (
    dump_error,
    dump_positions,
    dump_usage,
    load_blocks,
    load_error,
    load_positions,
    load_usage,
    pack_lengths,
    pack_numbers,
    unpack_lengths,
    unpack_numbers,
)
from gateway.storage.statement import Link, Row, Statement, limited, value
from gateway.storage.tables import ENDED, KEYED, UNFINISHED, messages, sessions, turn_chunks, turns
from gateway.usecases.ports import Checkpoint, StoredAnswer

_c = turns.c
_FIXED = (
    "turn_id",
    "message_id",
    "model",
    "created_ms",
    "principal",
    "idempotency_key",
    "request_digest",
    "cancel_when_unwatched",
)
_POSITIONS = ("positions", "first_seq", "last_seq")
_CHANGING = (
    "state",
    "started_ms",
    "ended_ms",
    "answer_message_id",
    "stop_reason",
    "usage",
    "error",
    *_POSITIONS,
)
_READ = [*_FIXED, *_CHANGING[:8]]
_SESSION_NO = select(sessions.c.session_no).where(sessions.c.session_id == value("session_id")).scalar_subquery()
_OF_SESSION = _c.session_no == _SESSION_NO
_BY_ID = _c.turn_id == value("turn_id")
_BY_NO = _c.turn_no == value("turn_no")
_BY_KEY = (_c.principal == value("principal")) & (_c.idempotency_key == value("idempotency_key"))
_TURN_NO = select(_c.turn_no).where(_BY_ID).scalar_subquery()
_SELECT = select(sessions.c.session_id, *(_c[name] for name in _READ)).join_from(
    turns, sessions, sessions.c.session_no == _c.session_no
)

# An INSERT has the columns in the order of the table.
_INSERTED = [c.name for c in turns.c if c.name in ("session_no", *_FIXED, *_CHANGING)]
_INSERT = Statement(insert(turns).values({name: value(name) for name in _INSERTED}), " ".join(_INSERTED))
_FREE_KEY = Statement(
    update(turns).where(_BY_KEY, KEYED).values(idempotency_key=literal_column("''")), "principal idempotency_key"
)
_GET = Statement(_SELECT.where(_BY_ID), "turn_id")
_FIND_BY_KEY = Statement(
    _SELECT.where(_BY_KEY, KEYED, _c.created_ms >= value("not_before_ms")), "principal idempotency_key not_before_ms"
)
_UPDATE = Statement(
    update(turns).where(_BY_NO).ordered_values(*((_c[name], value(name)) for name in _CHANGING)),
    " ".join([*_CHANGING, "turn_no"]),
)
_SET_POSITIONS = Statement(
    update(turns).where(_BY_NO).ordered_values(*((_c[name], value(name)) for name in _POSITIONS)),
    " ".join([*_POSITIONS, "turn_no"]),
)
_UNFINISHED = Statement(_SELECT.add_columns(_c.turn_no).where(UNFINISHED).order_by(_c.session_no, _c.turn_no))
_UNFINISHED_OF_SESSION = Statement(_SELECT.where(UNFINISHED, _OF_SESSION).order_by(_c.turn_no), "session_id")
_AFTER = Statement(
    limited(_SELECT.where(ENDED, _OF_SESSION, _c.last_seq > value("seq")).order_by(_c.first_seq)),
    "session_id seq limit",
)
_PAGE = Statement(
    limited(
        _SELECT.where(
            _OF_SESSION, tuple_(_c.created_ms, _c.turn_id) < tuple_(value("created_ms"), value("turn_id"))
        ).order_by(_c.created_ms.desc(), _c.turn_id.desc())
    ),
    "session_id created_ms turn_id limit",
)

_k = turn_chunks.c
_CHUNK = ("block", "kind", "tool_use_id", "tool_name", "signature", "complete", "lengths", "text")
_ADD_CHUNK = Statement(
    insert(turn_chunks).values({name: value(name) for name in ("turn_no", *_CHUNK)}), " ".join(("turn_no", *_CHUNK))
)
_CHUNKS = Statement(
    select(*(_k[name] for name in _CHUNK)).where(_k.turn_no == _TURN_NO).order_by(_k.chunk_no), "turn_id"
)
_DROP_CHUNKS = Statement(delete(turn_chunks).where(_k.turn_no == value("turn_no")), "turn_no")
_FINISH = Statement(
    update(turns)
    .where(_BY_NO)
    .ordered_values(*((_c[name], value(name)) for name in _CHANGING), (_c.answer_lengths, value("lengths"))),
    " ".join([*_CHANGING, "lengths", "turn_no"]),
)
# Only the ended turns are looked for by the numbers of their events, so these stay out of it.
_SET_PROGRESS = Statement(
    update(turns).where(_BY_NO).ordered_values(*((_c[name], value(name)) for name in ("usage", "positions"))),
    "usage positions turn_no",
)
_ANSWER = Statement(
    select(messages.c.blocks, _c.answer_lengths)
    .join_from(
        turns,
        messages,
        (messages.c.session_no == _c.session_no) & (messages.c.message_id == _c.answer_message_id),
    )
    .where(_BY_ID, _c.answer_lengths.is_not(null())),
    "turn_id",
)
_END = (2**63 - 1, "")


class SqlTurns:
    """See the port."""

    __slots__ = ("_link", "_numbers")

    def __init__(self, link: Link, numbers: Numbers) -> None:
        self._link = link
        self._numbers = numbers

    def insert(self, turn: Turn) -> None:
        """Add a row with every field. An idempotency key belongs to its newest use: an older turn gives it up."""
        if turn.idempotency_key:
            self._link.run(_FREE_KEY, turn.principal, turn.idempotency_key)
        number = self._link.insert(
            _INSERT,
            turn.turn_id,
            self._numbers.session(turn.session_id),
            turn.message_id,
            turn.state,
            turn.model,
            turn.created_ms,
            turn.principal,
            turn.idempotency_key,
            turn.request_digest,
            int(turn.cancel_when_unwatched),
            *_changing(turn)[1:],
        )
        self._numbers.turn_is(turn.turn_id, number)

    def get(self, turn_id: str) -> Turn | None:
        """The turn."""
        row = self._link.one(_GET, turn_id)
        return None if row is None else _turn(row)

    def find_by_key(self, principal: str, idempotency_key: str, not_before_ms: int) -> Turn | None:
        """The turn a key was last used for, unless it was created before `not_before_ms`."""
        if not idempotency_key:
            return None
        row = self._link.one(_FIND_BY_KEY, principal, idempotency_key, not_before_ms)
        return None if row is None else _turn(row)

    def update(self, turn: Turn) -> None:
        """Write state, times, answer, stop reason, usage, error and positions."""
        self._link.run(_UPDATE, *_changing(turn), self._numbers.turn(turn.turn_id))

    def set_positions(self, turn_id: str, positions: TurnPositions) -> None:
        """Write which sequence numbers its events have."""
        self._link.run(_SET_POSITIONS, *_positions(positions), self._numbers.turn(turn_id))

    def append_checkpoints(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Costs what the checkpoints hold, not what the answers hold. Raises TURN_NOT_FOUND."""
        numbered = [(self._numbers.turn(checkpoint.turn_id), checkpoint) for checkpoint in checkpoints]
        self._link.run_each(
            _SET_PROGRESS, [(dump_usage(c.usage), dump_positions(c.positions), number) for number, c in numbered]
        )
        self._link.run_each(
            _ADD_CHUNK,
            [
                (
                    number,
                    index,
                    block.kind,
                    block.tool_use_id,
                    block.tool_name,
                    block.signature,
                    int(block.complete),
                    pack_numbers(lengths),
                    block.text,
                )
                for number, checkpoint in numbered
                for index, block, lengths in checkpoint.blocks
            ],
        )

    def finish(self, turn: Turn, chunk_lengths: Sequence[Sequence[int]], *, checkpoints: bool = True) -> None:
        """As `update`; the answer is in its message now: keep the packed lengths, drop the checkpoints if there may be
        any."""
        number = self._numbers.turn(turn.turn_id)
        self._link.run(_FINISH, *_changing(turn), pack_lengths(chunk_lengths), number)
        if checkpoints:
            self._link.run(_DROP_CHUNKS, number)

    def answer(self, turn_id: str) -> StoredAnswer | None:
        """The answer of an ended turn, or what the checkpoints of an unfinished one hold; None without either."""
        row = self._link.one(_ANSWER, turn_id)
        if row is not None:
            return StoredAnswer(load_blocks(row[0]), unpack_lengths(row[1]))
        rows = self._link.all(_CHUNKS, turn_id)
        return _assemble(rows) if rows else None

    def unfinished(self, session_id: str | None = None) -> list[Turn]:
        """Queued and running turns in the order they were accepted."""
        if session_id is None:
            rows = sorted(self._link.all(_UNFINISHED), key=lambda row: row[-1])
            return [_turn(row[:-1]) for row in rows]
        return [_turn(row) for row in self._link.all(_UNFINISHED_OF_SESSION, session_id)]

    def after(self, session_id: str, seq: int, limit: int) -> list[Turn]:
        """Ended turns with an event after `seq`, by the first of their events."""
        return [_turn(row) for row in self._link.all(_AFTER, session_id, seq, limit)]

    def page(self, session_id: str, *, after: tuple[int, str] | None, limit: int) -> list[Turn]:
        """Newest first by (created_ms, turn_id)."""
        return [_turn(row) for row in self._link.all(_PAGE, session_id, *(after or _END), limit)]


def _positions(positions: TurnPositions) -> tuple[str, int, int]:
    first_delta = positions.deltas[0][0] if positions.deltas else 0
    first = positions.message or positions.started or first_delta or positions.ended
    return dump_positions(positions), first, positions.last


def _changing(turn: Turn) -> Row:
    return (
        turn.state,
        turn.started_ms,
        turn.ended_ms,
        turn.answer_message_id,
        turn.stop_reason,
        dump_usage(turn.usage),
        dump_error(turn.error),
        *_positions(turn.positions),
    )


def _turn(row: Row) -> Turn:
    session_id, turn_id, message_id, model, created_ms, principal, key, digest, cancel_when_unwatched = row[:9]
    state, started_ms, ended_ms, answer_message_id, stop_reason, usage, error, positions = row[9:]
    return Turn(
        turn_id,
        session_id,
        message_id,
        state,
        model,
        created_ms,
        principal,
        key,
        digest,
        started_ms,
        ended_ms,
        answer_message_id,
        stop_reason,
        load_usage(usage),
        load_error(error),
        load_positions(positions),
        bool(cancel_when_unwatched),
    )


def _assemble(rows: Sequence[Row]) -> StoredAnswer:
    """Blocks from their checkpoints: texts and lengths one after the other, the rest as the newest row has it."""
    texts: dict[int, list[str]] = {}
    lengths: dict[int, list[int]] = {}
    newest: dict[int, Row] = {}
    for row in rows:
        index = row[0]
        newest[index] = row
        texts.setdefault(index, []).append(row[7])
        lengths.setdefault(index, []).extend(unpack_numbers(row[6]))
    blocks = []
    order = range(max(newest) + 1)
    for index in order:
        if index not in newest:
            # A text block that got no text had no row in older versions; those after it keep their places.
            blocks.append(ContentBlock(TEXT, ""))
            continue
        _, kind, tool_use_id, tool_name, signature, complete, _, _ = newest[index]
        blocks.append(ContentBlock(kind, "".join(texts[index]), tool_use_id, tool_name, signature, bool(complete)))
    return StoredAnswer(tuple(blocks), tuple(tuple(lengths.get(index, ())) for index in order))
