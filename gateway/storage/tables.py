"""The tables and their indexes. Repositories build their statements from them; migrate creates them in a fresh file.

Rows that belong to a session carry its number, not its id: numbers rise, so what is written now lies together however
many sessions there are. Every read of the ports has an index in its own order; none sorts. Truth values are 0 and 1.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

HEAD = "0001"
"""The newest migration; the schema below is what it leaves behind."""

metadata = MetaData()

_NUMBER = BigInteger().with_variant(Integer(), "sqlite")


def _number(name: str, **options: Any) -> Column[Any]:
    return Column(name, _NUMBER, nullable=False, **options)


def _text(name: str) -> Column[Any]:
    return Column(name, Text, nullable=False)


sessions = Table(
    "sessions",
    metadata,
    _number("session_no", primary_key=True),
    _text("session_id"),
    _text("agent_id"),
    _text("model"),
    _number("created_ms"),
    _number("updated_ms"),
    _text("title"),
    _number("message_count"),
    _number("revision"),
    _number("epoch"),
    _number("last_seq"),
    _number("deleted_ms"),
    _text("forked_from"),
    _number("generation"),
    _text("system_prompt"),
)
LIVE = text("deleted_ms = 0")
DELETED = text("deleted_ms <> 0")
Index("sessions_by_id", sessions.c.session_id, unique=True)
for _name, _which in (("live", LIVE), ("deleted", DELETED)):
    Index(
        f"sessions_{_name}",
        sessions.c.created_ms,
        sessions.c.session_id,
        sqlite_where=_which,
        postgresql_where=_which,
    )
    Index(
        f"sessions_{_name}_of_agent",
        sessions.c.agent_id,
        sessions.c.created_ms,
        sessions.c.session_id,
        sqlite_where=_which,
        postgresql_where=_which,
    )

# A position is taken once a generation: a summary takes the place of the last message it replaces.
messages = Table(
    "messages",
    metadata,
    _number("session_no"),
    _number("position"),
    _number("generation"),
    _number("replaced_in"),
    _text("message_id"),
    _text("turn_id"),
    _number("role"),
    _text("model"),
    _number("created_ms"),
    _text("blocks"),
    PrimaryKeyConstraint("session_no", "position", "generation"),
    sqlite_with_rowid=False,
)
Index("messages_by_id", messages.c.session_no, messages.c.message_id, unique=True)

turns = Table(
    "turns",
    metadata,
    _number("turn_no", primary_key=True),
    _text("turn_id"),
    _number("session_no"),
    _text("message_id"),
    _number("state"),
    _text("model"),
    _number("created_ms"),
    _text("principal"),
    _text("idempotency_key"),
    _text("request_digest"),
    _number("cancel_when_unwatched"),
    _number("started_ms"),
    _number("ended_ms"),
    _text("answer_message_id"),
    _text("stop_reason"),
    _text("usage"),
    _text("error"),
    _text("positions"),
    _number("first_seq"),
    _number("last_seq"),
    Column("answer_lengths", LargeBinary),
)
UNFINISHED = text("state <= 2")
ENDED = text("state > 2")
KEYED = text("idempotency_key <> ''")
Index("turns_by_id", turns.c.turn_id, unique=True)
Index("turns_by_time", turns.c.session_no, turns.c.created_ms, turns.c.turn_id)
Index("turns_unfinished", turns.c.session_no, turns.c.turn_no, sqlite_where=UNFINISHED, postgresql_where=UNFINISHED)
Index(
    "turns_ended",
    turns.c.session_no,
    turns.c.first_seq,
    turns.c.last_seq,
    sqlite_where=ENDED,
    postgresql_where=ENDED,
)
Index(
    "turns_by_key",
    turns.c.principal,
    turns.c.idempotency_key,
    unique=True,
    sqlite_where=KEYED,
    postgresql_where=KEYED,
)

# What the checkpoints of unfinished turns hold: a row for each block that gained text, append only.
turn_chunks = Table(
    "turn_chunks",
    metadata,
    _number("chunk_no", primary_key=True),
    _number("turn_no"),
    _number("block"),
    _number("kind"),
    _text("tool_use_id"),
    _text("tool_name"),
    _text("signature"),
    _number("complete"),
    Column("lengths", LargeBinary, nullable=False),
    _text("text"),
)
Index("turn_chunks_of_turn", turn_chunks.c.turn_no, turn_chunks.c.chunk_no)

COUNTS = (
    "uncached_input",
    "cache_write_5m",
    "cache_write_1h",
    "cache_read",
    "output",
    "thinking",
    "server_tool_requests",
)
usage_records = Table(
    "usage_records",
    metadata,
    _number("record_id", primary_key=True),
    _number("session_no"),
    _text("turn_id"),
    _number("attempt"),
    _text("model"),
    _text("provider"),
    *(_number(name) for name in COUNTS),
    _number("input_pico"),
    _number("output_pico"),
    _number("priced"),
    _text("price_version"),
    _number("status"),
    _text("outcome"),
    _number("created_ms"),
)
Index("usage_records_of_session", usage_records.c.session_no, usage_records.c.record_id)

# Sums of usage_records. Session number 0 stands for all sessions together.
usage_totals = Table(
    "usage_totals",
    metadata,
    _number("session_no"),
    _text("model"),
    _number("input_tokens"),
    _number("output_tokens"),
    _number("total_pico"),
    _number("requests"),
    _number("unpriced"),
    PrimaryKeyConstraint("session_no", "model"),
    sqlite_with_rowid=False,
)

provider_keys = Table(
    "provider_keys",
    metadata,
    Column("provider", Text, primary_key=True, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    _text("masked"),
    _number("created_ms"),
    _number("last_used_ms"),
)

audit_log = Table(
    "audit_log",
    metadata,
    _number("event_id", primary_key=True),
    _number("created_ms"),
    _text("principal"),
    _text("action"),
    _text("subject"),
    _text("outcome"),
)

TRIGGERS = tuple(
    f"CREATE TRIGGER {table}_no_{deed} BEFORE {deed.upper()} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{table} is append only'); END"
    for table in ("usage_records", "audit_log")
    for deed in ("update", "delete")
)
"""The ledger and the audit log are written once; the database itself refuses anything else."""
