"""Every statement finds its rows by an index: none reads a whole table, none sorts."""

import importlib
import re
import sqlite3
from collections.abc import Iterator

import pytest

from gateway.storage import migrate
from gateway.storage.statement import Statement

REPOSITORIES = ("sessions", "messages", "turns", "usage", "keys", "audit")
# All keys are wanted, and there are as many as providers.
WHOLE = {("keys", "_ALL")}


def statements() -> Iterator[tuple[str, str, Statement]]:
    for repository in REPOSITORIES:
        for name, found in vars(importlib.import_module(f"gateway.storage.{repository}")).items():
            if isinstance(found, Statement):
                yield repository, name, found
            elif isinstance(found, dict) and name.startswith("_P"):
                yield from ((repository, f"{name}[{key}]", each) for key, each in found.items())


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate.create(connection)
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("repository", "name", "statement"), [pytest.param(*found, id=f"{found[0]}.{found[1]}") for found in statements()]
)
def test_plan(connection: sqlite3.Connection, repository: str, name: str, statement: Statement) -> None:
    parameters = [None] * statement.sql.count("?")
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", parameters)]
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
    # A partial index may be read whole: what is in it is what is asked for.
    scans = [
        step
        for step in plan
        if re.match(r"SCAN (?!(\d+ )?CONSTANT)", step) and "USING INDEX turns_unfinished" not in step
    ]
    assert bool(scans) == ((repository, name) in WHOLE), plan


@pytest.mark.parametrize("table", ["usage_records", "audit_log"])
@pytest.mark.parametrize("deed", ["UPDATE {} SET created_ms = 0", "DELETE FROM {}"])
def test_what_is_written_once_stays(connection: sqlite3.Connection, table: str, deed: str) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    connection.execute(f"INSERT INTO {table} VALUES ({', '.join('1' for _ in columns)})")
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        connection.execute(deed.format(table))
