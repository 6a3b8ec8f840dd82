"""Messages in a transaction: the port `Messages` over their table. Called by use cases, through transaction.

A message belongs to the generations from `generation` to before `replaced_in` (0: to the present one).
"""

from sqlalchemy import func, insert, literal_column, or_, select, update

from gateway.domain.error import session_not_found
from gateway.domain.message import Message
from gateway.storage.numbers import Numbers
from gateway.storage.packing import dump_blocks, load_blocks
from gateway.storage.statement import Link, Row, Statement, limited, value
from gateway.storage.tables import messages, sessions
from gateway.usecases.ports import PAGE_BYTES

_c = messages.c
_FIELDS = ("message_id", "turn_id", "role", "model", "created_ms", "blocks")
_PLACED = ("session_no", "position", "generation", "replaced_in")
_SESSION_NO = select(sessions.c.session_no).where(sessions.c.session_id == value("session_id")).scalar_subquery()
_OF_SESSION = _c.session_no == _SESSION_NO
_PRESENT = _c.replaced_in == literal_column("0")
_IN_GENERATION = (_c.generation <= value("generation")) & or_(_PRESENT, _c.replaced_in > value("generation_2"))

# The place comes first and the row after it: in one statement SQLite would copy the row twice, since it reads the table
# that it writes.
_NEXT = func.coalesce(
    select(func.max(_c.position)).where(_c.session_no == sessions.c.session_no).scalar_subquery(), literal_column("0")
) + literal_column("1")
_PLACE = Statement(
    select(sessions.c.generation, _NEXT).where(sessions.c.session_no == value("session_no")), "session_no"
)
_INSERT = Statement(
    insert(messages).values({name: value(name) for name in (*_PLACED, *_FIELDS)}), " ".join((*_PLACED, *_FIELDS))
)

_SELECT = select(*(_c[name] for name in _FIELDS), _c.position).where(_OF_SESSION)
_UP = limited(_SELECT.where(_c.position > value("after")).order_by(_c.position))
_DOWN = limited(_SELECT.where(_c.position < value("after")).order_by(_c.position.desc()))
_GET = Statement(_SELECT.where(_c.message_id == value("message_id")), "session_id message_id")
_HISTORY = Statement(_SELECT.where(_PRESENT).order_by(_c.position), "session_id")
_PAGE = {
    False: Statement(_UP.where(_PRESENT), "session_id after limit"),
    True: Statement(_DOWN.where(_PRESENT), "session_id after limit"),
}
_PAGE_OF_GENERATION = {
    False: Statement(_UP.where(_IN_GENERATION), "session_id after generation generation_2 limit"),
    True: Statement(_DOWN.where(_IN_GENERATION), "session_id after generation generation_2 limit"),
}
_REPLACE = Statement(
    update(messages)
    .where(_OF_SESSION, _c.position < value("position"), _PRESENT)
    .values(replaced_in=value("generation")),
    "generation session_id position",
)
_BLOCKS = _FIELDS.index("blocks")
_END = 2**63 - 1


class SqlMessages:
    """See the port."""

    __slots__ = ("_link", "_numbers")

    def __init__(self, link: Link, numbers: Numbers) -> None:
        self._link = link
        self._numbers = numbers

    def insert(self, message: Message) -> Message:
        """Append to the present generation; gives it the next position (or keeps a position that is not 0)."""
        session_no = self._numbers.session(message.session_id)
        place = self._numbers.place(session_no) or self._link.one(_PLACE, session_no)
        if place is None:
            raise session_not_found(message.session_id)
        generation, next_position = place
        position = message.position or next_position
        self._link.run(
            _INSERT,
            session_no,
            position,
            generation,
            0,
            message.message_id,
            message.turn_id,
            message.role,
            message.model,
            message.created_ms,
            dump_blocks(message.blocks),
        )
        self._numbers.place_is(session_no, generation, max(next_position, position + 1))
        return message if message.position else message._replace(position=position)

    def get(self, session_id: str, message_id: str) -> Message | None:
        """The message, whatever its generation."""
        row = self._link.one(_GET, session_id, message_id)
        return None if row is None else _message(session_id, row)

    def history(self, session_id: str) -> list[Message]:
        """The whole present generation, oldest first."""
        return [_message(session_id, row) for row in self._link.all(_HISTORY, session_id)]

    def page(
        self,
        session_id: str,
        *,
        after: int | None,
        limit: int,
        newest_first: bool,
        generation: int,
        room: int = PAGE_BYTES,
    ) -> tuple[list[Message], bool]:
        """A page of about `room` bytes at most, and whether more follow; `after` is the position of the last one seen;
        generation 0 is the present one."""
        start = after if after is not None else (_END if newest_first else -1)
        if generation:
            paged = _PAGE_OF_GENERATION[newest_first]
            rows = self._link.each(paged, session_id, start, generation, generation, limit + 1)
        else:
            rows = self._link.each(_PAGE[newest_first], session_id, start, limit + 1)
        page: list[Message] = []
        for row in rows:
            if len(page) == limit or room <= 0:
                return page, True
            page.append(_message(session_id, row))
            room -= len(row[_BLOCKS].encode())
        return page, False

    def replace_before(self, session_id: str, position: int, generation: int) -> int:
        """Messages of the present generation below `position` end with `generation` - 1; returns how many."""
        return self._link.run(_REPLACE, generation, session_id, position)


def _message(session_id: str, row: Row) -> Message:
    message_id, turn_id, role, model, created_ms, blocks, position = row
    return Message(message_id, session_id, turn_id, role, load_blocks(blocks), model, created_ms, position)
