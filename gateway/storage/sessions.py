"""Sessions in a transaction: the port `Sessions` over their table. Called by use cases, through transaction."""

from sqlalchemy import insert, literal_column, select, tuple_, update
from sqlalchemy.sql.elements import TextClause

from gateway.domain.error import session_not_found
from gateway.domain.session import Session
from gateway.storage.numbers import Numbers
from gateway.storage.statement import Link, Statement, limited, value
from gateway.storage.tables import DELETED, LIVE, sessions
from gateway.usecases.ports import PROMPTS_BYTES

_c = sessions.c
_FIELDS = (
    "session_id agent_id model created_ms updated_ms title system_prompt message_count revision epoch last_seq "
    "deleted_ms forked_from generation"
)
_CHANGING = "agent_id model created_ms updated_ms title system_prompt revision deleted_ms forked_from"
_SELECT = select(*(_c[name] for name in _FIELDS.split()))
_SELECT_WITHOUT_PROMPTS = select(
    *(literal_column("''") if name == "system_prompt" else _c[name] for name in _FIELDS.split())
).select_from(sessions)
_BY_ID = _c.session_id == value("session_id")
_BY_NO = _c.session_no == value("session_no")

# An INSERT has the columns in the order of the table, in which the system prompt is the last.
_INSERT = Statement(
    insert(sessions).values({name: value(name) for name in _FIELDS.split()}),
    f"{_FIELDS.replace('system_prompt ', '')} system_prompt",
)
_GET = Statement(_SELECT.where(_BY_ID), "session_id")
_UPDATE = Statement(
    update(sessions).where(_BY_ID).ordered_values(*((_c[name], value(name)) for name in _CHANGING.split())),
    f"{_CHANGING} session_id",
)
_TOUCH = Statement(
    update(sessions)
    .where(_BY_NO)
    .ordered_values((_c.updated_ms, value("updated_ms")), (_c.message_count, _c.message_count + literal_column("1"))),
    "updated_ms session_no",
)
_TOUCH_AND_SET_POSITION = Statement(
    update(sessions)
    .where(_BY_NO)
    .ordered_values(
        (_c.updated_ms, value("updated_ms")),
        (_c.message_count, _c.message_count + literal_column("1")),
        (_c.epoch, value("epoch")),
        (_c.last_seq, value("last_seq")),
    ),
    "updated_ms epoch last_seq session_no",
)
_SET_POSITION = Statement(
    update(sessions).where(_BY_NO).ordered_values((_c.epoch, value("epoch")), (_c.last_seq, value("last_seq"))),
    "epoch last_seq session_no",
)
_SET_GENERATION = Statement(
    update(sessions)
    .where(_BY_ID)
    .ordered_values(
        (_c.generation, value("generation")),
        (_c.message_count, value("message_count")),
        (_c.updated_ms, value("updated_ms")),
    ),
    "generation message_count updated_ms session_id",
)


def _page(which: TextClause, *, of_agent: bool, prompts: bool) -> Statement:
    below = tuple_(_c.created_ms, _c.session_id) < tuple_(value("created_ms"), value("session_id"))
    page = (_SELECT if prompts else _SELECT_WITHOUT_PROMPTS).where(which)
    if of_agent:
        page = page.where(_c.agent_id == value("agent_id"))
    return Statement(
        limited(page.where(below).order_by(_c.created_ms.desc(), _c.session_id.desc())),
        ("agent_id " if of_agent else "") + "created_ms session_id limit",
    )


_PAGES = {
    (which is DELETED, of_agent, prompts): _page(which, of_agent=of_agent, prompts=prompts)
    for which in (LIVE, DELETED)
    for of_agent in (False, True)
    for prompts in (False, True)
}
_SYSTEM_PROMPT = _FIELDS.split().index("system_prompt")
_END = (2**63 - 1, "")


class SqlSessions:
    """See the port."""

    __slots__ = ("_link", "_numbers")

    def __init__(self, link: Link, numbers: Numbers) -> None:
        self._link = link
        self._numbers = numbers

    def insert(self, session: Session) -> None:
        """Add a row with every field."""
        s = session
        number = self._link.insert(
            _INSERT,
            s.session_id,
            s.agent_id,
            s.model,
            s.created_ms,
            s.updated_ms,
            s.title,
            s.message_count,
            s.revision,
            s.epoch,
            s.last_seq,
            s.deleted_ms,
            s.forked_from,
            s.generation,
            s.system_prompt,
        )
        self._numbers.session_is(s.session_id, number)
        self._numbers.place_is(number, s.generation, 1)

    def get(self, session_id: str) -> Session | None:
        """The session, deleted or not."""
        row = self._link.one(_GET, session_id)
        return None if row is None else Session(*row)

    def update(self, session: Session) -> None:
        """Write every field but message_count, epoch, last_seq and generation."""
        s = session
        self._change(
            _UPDATE,
            s.agent_id,
            s.model,
            s.created_ms,
            s.updated_ms,
            s.title,
            s.system_prompt,
            s.revision,
            s.deleted_ms,
            s.forked_from,
            s.session_id,
        )

    def page(
        self, *, after: tuple[int, str] | None, limit: int, agent_id: str, deleted: bool, prompts: bool = True
    ) -> tuple[list[Session], bool]:
        """A page, newest first by (created_ms, session_id), of those below `after`: the deleted ones or the living;
        and whether more follow. Without `prompts` theirs are empty."""
        agent = (agent_id,) if agent_id else ()
        rows = self._link.each(_PAGES[deleted, bool(agent_id), prompts], *agent, *(after or _END), limit + 1)
        page: list[Session] = []
        room = PROMPTS_BYTES
        for row in rows:
            if len(page) == limit or room <= 0:
                return page, True
            page.append(Session(*row))
            if prompt := row[_SYSTEM_PROMPT]:
                room -= len(prompt.encode())
        return page, False

    def touch(self, session_id: str, updated_ms: int, position: tuple[int, int] | None = None) -> None:
        """Set updated_ms and count one message more; also sets `position`, (epoch, last_seq), in the same step."""
        number = self._numbers.session(session_id)
        if position is None:
            self._link.run(_TOUCH, updated_ms, number)
        else:
            self._link.run(_TOUCH_AND_SET_POSITION, updated_ms, *position, number)

    def set_position(self, session_id: str, epoch: int, last_seq: int) -> None:
        """Write the position of the last stored event."""
        self._link.run(_SET_POSITION, epoch, last_seq, self._numbers.session(session_id))

    def set_generation(self, session_id: str, generation: int, message_count: int, updated_ms: int) -> None:
        """Write what a compaction changes."""
        self._change(_SET_GENERATION, generation, message_count, updated_ms, session_id)
        self._numbers.forget()

    def _change(self, statement: Statement, *values: object) -> None:
        if self._link.run(statement, *values) == 0:
            raise session_not_found(str(values[-1]))
