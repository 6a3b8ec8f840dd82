"""Values to store. Every field differs from its default where that helps to find a column that was mixed up."""

from collections.abc import Callable
from inspect import getmembers, iscoroutinefunction
from pathlib import Path
from types import ModuleType
from typing import Any

from agentspace.v1 import message_pb2, turn_pb2, usage_pb2
from gateway.domain.message import ContentBlock, Message
from gateway.domain.session import Session
from gateway.domain.turn import Turn
from gateway.domain.usage import Charge, TokenCounts, UsageRecord
from gateway.storage.file import prepare
from gateway.storage.statement import Link
from gateway.storage.transaction import SqlTransaction


def cases(suite: ModuleType) -> list[Callable[..., Any]]:
    """What a suite says every store must do."""
    return [
        function
        for name, function in getmembers(suite, iscoroutinefunction)
        if function.__module__ == suite.__name__ and not name.startswith("_")
    ]


def session(session_id: str = "s1", created_ms: int = 1000, **changes: Any) -> Session:
    fields: dict[str, Any] = {"agent_id": "default", "model": "scripted/echo", "updated_ms": created_ms, **changes}
    return Session(session_id=session_id, created_ms=created_ms, **fields)


def message(message_id: str = "m1", session_id: str = "s1", text: str = "hello", **changes: Any) -> Message:
    fields: dict[str, Any] = {
        "turn_id": "t1",
        "role": message_pb2.ROLE_USER,
        "blocks": (ContentBlock(message_pb2.BLOCK_KIND_TEXT, text),),
        "model": "",
        "created_ms": 1001,
        **changes,
    }
    return Message(message_id=message_id, session_id=session_id, **fields)


def turn(turn_id: str = "t1", session_id: str = "s1", **changes: Any) -> Turn:
    fields: dict[str, Any] = {
        "message_id": "m1",
        "state": turn_pb2.TURN_STATE_RUNNING,
        "model": "scripted/echo",
        "created_ms": 1002,
        **changes,
    }
    return Turn(turn_id=turn_id, session_id=session_id, **fields)


def record(session_id: str = "s1", turn_id: str = "t1", model: str = "claude", **changes: Any) -> UsageRecord:
    fields: dict[str, Any] = {
        "attempt": 1,
        "provider": "anthropic",
        "counts": TokenCounts(1, 2, 3, 4, 5, 6, 7),
        "charge": Charge(100, 50, True, "2026-01-01"),
        "status": usage_pb2.USAGE_STATUS_FINAL,
        "outcome": "completed",
        "created_ms": 1003,
        **changes,
    }
    return UsageRecord(session_id=session_id, turn_id=turn_id, model=model, **fields)


def damaged(path: Path) -> None:
    """Store a session "s1" with a message that cannot be read to its end, and a sound one "s2"."""
    connection = prepare(path)
    tx = SqlTransaction(Link(connection))
    # To find its place SQLite also reads rows of neighbours, so there are some in between.
    for name, texts in ("s2", ["sound"]), ("between", ["sound " * 500] * 20), ("s1", ["damaged " * 10_000]):
        tx.sessions.insert(session(name))
        for number, text in enumerate(texts):
            tx.messages.insert(message(f"m{number} of {name}", name, text))
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    page = data.index(b"damaged " * 400) // size * size
    # A long text lies on pages of its own, each of which begins with the number of the next.
    data[page : page + 4] = b"\x7f\xff\xff\xff"
    path.write_bytes(data)
