"""Fills a store with sessions as if they had been held: each one question, one answer, its turn and its usage.

Called by steps, on the database a gateway has made and left. Writes the gateway's own tables directly, without its
indexes until the end, because a million turns through the front door would take an hour.
"""

import os
import sqlite3
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from agentspace.v1.message_pb2 import ROLE_ASSISTANT, ROLE_USER
from agentspace.v1.turn_pb2 import TURN_STATE_COMPLETED
from agentspace.v1.usage_pb2 import USAGE_STATUS_FINAL
from gateway.domain.message import ContentBlock
from gateway.domain.turn import TurnPositions
from gateway.domain.turn_log import TEXT
from gateway.domain.usage import Charge, TokenCounts, TurnUsage
from gateway.ids import NanoIds
from gateway.storage.packing import dump_blocks, dump_positions, dump_usage, pack_lengths

MODEL = "claude-sonnet-5-5"
FIRST_MS = 1_750_000_000_000
APART_MS = 1_000
AT_ONCE = 50_000
DELTAS = 20
QUESTION = dump_blocks([ContentBlock(TEXT, "What is " + "the matter " * 18 + "?")])
ANSWER = dump_blocks([ContentBlock(TEXT, "This is the thing. " * DELTAS)])
LENGTHS = pack_lengths([[19] * DELTAS])
COUNTS = TokenCounts(uncached_input=60, output=100)
CHARGE = Charge(180_000_000, 1_500_000_000, True, "2026-10-01")
USAGE = dump_usage(TurnUsage(COUNTS, CHARGE, USAGE_STATUS_FINAL, 1))
POSITIONS = dump_positions(TurnPositions(1, 2, ((3, DELTAS),), DELTAS + 3))
LAST_SEQ = DELTAS + 3


def fill(path: Path, sessions: int) -> str:
    """Add so many sessions; returns the id of one in the middle."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-1000000"):
            database.execute(f"PRAGMA {pragma}")
        indexes = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql <> ''").fetchall()
        for name, _ in indexes:
            database.execute(f"DROP INDEX {name}")
        (last,) = database.execute("SELECT coalesce(max(session_no), 0) FROM sessions").fetchone()
        numbers = count(last + 1)
        middle, clock = "", _Then()
        ids = NanoIds(clock)
        for done in range(0, sessions, AT_ONCE):
            held = [_Held(next(numbers), clock, ids) for _ in range(min(AT_ONCE, sessions - done))]
            middle = middle if done > sessions // 2 else held[len(held) // 2].session
            database.execute("BEGIN")
            for table in ("sessions", "messages", "turns", "usage_records", "usage_totals"):
                _insert(database, table, held)
            database.execute("COMMIT")
        total = {"session_no": 0, "model": MODEL} | _sums(sessions)
        database.execute(*_statement("usage_totals", total, "INSERT OR REPLACE"))
        for _, sql in indexes:
            database.execute(sql)
        database.execute("PRAGMA journal_mode=WAL")
    finally:
        database.close()
    # Or the system writes it while servers are measured, and whoever waits for the disk pays for that.
    os.sync()
    return middle


class _Then:
    """The clock of sessions that are as old as their number says."""

    def __init__(self) -> None:
        self.ms = FIRST_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


class _Held:
    """One session's names."""

    __slots__ = ("answer", "at", "no", "question", "session", "turn")

    def __init__(self, no: int, clock: _Then, ids: NanoIds) -> None:
        self.no = no
        self.at = clock.ms = FIRST_MS + no * APART_MS
        self.session, self.turn = ids.session(), ids.turn()
        self.question, self.answer = ids.message(), ids.message()

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        """What the table holds of it."""
        at = self.at
        if table == "sessions":
            yield {
                "session_no": self.no,
                "session_id": self.session,
                "agent_id": "default",
                "model": MODEL,
                "created_ms": at,
                "updated_ms": at,
                "title": "",
                "message_count": 2,
                "revision": 0,
                "epoch": 1,
                "last_seq": LAST_SEQ,
                "deleted_ms": 0,
                "forked_from": "",
                "generation": 1,
                "system_prompt": "",
            }
        elif table == "messages":
            place = {"session_no": self.no, "generation": 1, "replaced_in": 0, "turn_id": self.turn, "created_ms": at}
            yield place | {
                "position": 1,
                "message_id": self.question,
                "role": ROLE_USER,
                "model": "",
                "blocks": QUESTION,
            }
            yield place | {
                "position": 2,
                "message_id": self.answer,
                "role": ROLE_ASSISTANT,
                "model": MODEL,
                "blocks": ANSWER,
            }
        elif table == "turns":
            yield {
                "turn_no": self.no,
                "turn_id": self.turn,
                "session_no": self.no,
                "message_id": self.question,
                "state": TURN_STATE_COMPLETED,
                "model": MODEL,
                "created_ms": at,
                "principal": "local",
                "idempotency_key": "",
                "request_digest": "",
                "cancel_when_unwatched": 0,
                "started_ms": at,
                "ended_ms": at,
                "answer_message_id": self.answer,
                "stop_reason": "end_turn",
                "usage": USAGE,
                "error": "",
                "positions": POSITIONS,
                "first_seq": 1,
                "last_seq": LAST_SEQ,
                "answer_lengths": LENGTHS,
            }
        elif table == "usage_records":
            yield {
                "record_id": self.no,
                "session_no": self.no,
                "turn_id": self.turn,
                "attempt": 1,
                "model": MODEL,
                "provider": "anthropic",
                "uncached_input": COUNTS.uncached_input,
                "cache_write_5m": 0,
                "cache_write_1h": 0,
                "cache_read": 0,
                "output": COUNTS.output,
                "thinking": 0,
                "server_tool_requests": 0,
                "input_pico": CHARGE.input_pico,
                "output_pico": CHARGE.output_pico,
                "priced": 1,
                "price_version": CHARGE.price_version,
                "status": USAGE_STATUS_FINAL,
                "outcome": "completed",
                "created_ms": at,
            }
        else:
            yield {"session_no": self.no, "model": MODEL} | _sums(1)


def _sums(turns: int) -> dict[str, int]:
    return {
        "input_tokens": COUNTS.input * turns,
        "output_tokens": COUNTS.output * turns,
        "total_pico": CHARGE.total_pico * turns,
        "requests": turns,
        "unpriced": 0,
    }


def _insert(database: sqlite3.Connection, table: str, held: list[_Held]) -> None:
    rows = (row for session in held for row in session.rows(table))
    statement, _ = _statement(table, next(held[0].rows(table)))
    database.executemany(statement, rows)


def _statement(table: str, row: dict[str, Any], verb: str = "INSERT") -> tuple[str, dict[str, Any]]:
    names = ", ".join(row)
    return f"{verb} INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in row)})", row
