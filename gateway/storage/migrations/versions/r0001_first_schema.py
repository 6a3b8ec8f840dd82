"""The first schema. Written once; the tables as they are now stand in gateway.storage.tables. Run by Alembic."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _number(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False)


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=False)


def upgrade() -> None:
    """Make everything."""
    op.create_table(
        "audit_log",
        _number("event_id"),
        _number("created_ms"),
        _text("principal"),
        _text("action"),
        _text("subject"),
        _text("outcome"),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_table(
        "messages",
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
        sa.PrimaryKeyConstraint("session_no", "position", "generation"),
        sqlite_with_rowid=False,
    )
    op.create_index("messages_by_id", "messages", ["session_no", "message_id"], unique=True)
    op.create_table(
        "provider_keys",
        _text("provider"),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        _text("masked"),
        _number("created_ms"),
        _number("last_used_ms"),
        sa.PrimaryKeyConstraint("provider"),
    )
    op.create_table(
        "sessions",
        _number("session_no"),
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
        sa.PrimaryKeyConstraint("session_no"),
    )
    op.create_index("sessions_by_id", "sessions", ["session_id"], unique=True)
    op.create_index(
        "sessions_deleted",
        "sessions",
        ["created_ms", "session_id"],
        sqlite_where=sa.text("deleted_ms <> 0"),
        postgresql_where=sa.text("deleted_ms <> 0"),
    )
    op.create_index(
        "sessions_deleted_of_agent",
        "sessions",
        ["agent_id", "created_ms", "session_id"],
        sqlite_where=sa.text("deleted_ms <> 0"),
        postgresql_where=sa.text("deleted_ms <> 0"),
    )
    op.create_index(
        "sessions_live",
        "sessions",
        ["created_ms", "session_id"],
        sqlite_where=sa.text("deleted_ms = 0"),
        postgresql_where=sa.text("deleted_ms = 0"),
    )
    op.create_index(
        "sessions_live_of_agent",
        "sessions",
        ["agent_id", "created_ms", "session_id"],
        sqlite_where=sa.text("deleted_ms = 0"),
        postgresql_where=sa.text("deleted_ms = 0"),
    )
    op.create_table(
        "turn_chunks",
        _number("chunk_no"),
        _number("turn_no"),
        _number("block"),
        _number("kind"),
        _text("tool_use_id"),
        _text("tool_name"),
        _text("signature"),
        _number("complete"),
        sa.Column("lengths", sa.LargeBinary(), nullable=False),
        _text("text"),
        sa.PrimaryKeyConstraint("chunk_no"),
    )
    op.create_index("turn_chunks_of_turn", "turn_chunks", ["turn_no", "chunk_no"], unique=False)
    op.create_table(
        "turns",
        _number("turn_no"),
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
        sa.Column("answer_lengths", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("turn_no"),
    )
    op.create_index("turns_by_id", "turns", ["turn_id"], unique=True)
    op.create_index(
        "turns_by_key",
        "turns",
        ["principal", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key <> ''"),
        postgresql_where=sa.text("idempotency_key <> ''"),
    )
    op.create_index("turns_by_time", "turns", ["session_no", "created_ms", "turn_id"], unique=False)
    op.create_index(
        "turns_ended",
        "turns",
        ["session_no", "first_seq", "last_seq"],
        sqlite_where=sa.text("state > 2"),
        postgresql_where=sa.text("state > 2"),
    )
    op.create_index(
        "turns_unfinished",
        "turns",
        ["session_no", "turn_no"],
        sqlite_where=sa.text("state <= 2"),
        postgresql_where=sa.text("state <= 2"),
    )
    op.create_table(
        "usage_records",
        _number("record_id"),
        _number("session_no"),
        _text("turn_id"),
        _number("attempt"),
        _text("model"),
        _text("provider"),
        _number("uncached_input"),
        _number("cache_write_5m"),
        _number("cache_write_1h"),
        _number("cache_read"),
        _number("output"),
        _number("thinking"),
        _number("server_tool_requests"),
        _number("input_pico"),
        _number("output_pico"),
        _number("priced"),
        _text("price_version"),
        _number("status"),
        _text("outcome"),
        _number("created_ms"),
        sa.PrimaryKeyConstraint("record_id"),
    )
    op.create_index("usage_records_of_session", "usage_records", ["session_no", "record_id"], unique=False)
    op.create_table(
        "usage_totals",
        _number("session_no"),
        _text("model"),
        _number("input_tokens"),
        _number("output_tokens"),
        _number("total_pico"),
        _number("requests"),
        _number("unpriced"),
        sa.PrimaryKeyConstraint("session_no", "model"),
        sqlite_with_rowid=False,
    )
    for table in ("usage_records", "audit_log"):
        for deed in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{deed} BEFORE {deed.upper()} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append only'); END"
            )
