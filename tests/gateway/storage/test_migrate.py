import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from gateway.storage import migrate
from gateway.storage.tables import HEAD

MIGRATIONS = Path(migrate.__file__).parent / "migrations"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "agentspace.db", isolation_level=None)
    yield connection
    connection.close()


def schema(connection: sqlite3.Connection) -> list[list[str]]:
    rows = connection.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name")
    return [[" ".join(field.split()) for field in row] for row in rows]


def test_from_scratch_equals_by_migrations(connection: sqlite3.Connection) -> None:
    scratch = sqlite3.connect(":memory:", isolation_level=None)
    migrate.create(scratch)
    assert migrate.version(connection) is None
    migrate.upgrade(connection)
    assert schema(connection) == schema(scratch)
    assert migrate.version(connection) == migrate.version(scratch) == HEAD
    scratch.close()


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD


def test_a_migration_that_breaks_off_is_taken_back_and_can_be_run_again(
    connection: sqlite3.Connection, tmp_path: Path
) -> None:
    migrate.create(connection)
    before = schema(connection)
    folder = tmp_path / "versions"
    folder.mkdir()
    for first in (MIGRATIONS / "versions").glob("r*.py"):
        (folder / first.name).write_text(first.read_text())
    step = (
        "from alembic import op\nimport sqlalchemy as sa\nrevision, down_revision = {revision!r}, {before!r}\n"
        "def upgrade():\n    op.create_table({table!r}, sa.Column('x', sa.Integer))\n    {then}\n"
    )
    (folder / "r0002_one.py").write_text(step.format(revision="0002", before=HEAD, table="one", then="pass"))
    second = folder / "r0003_two.py"
    second.write_text(step.format(revision="0003", before="0002", table="two", then="raise OSError('power cut')"))

    with pytest.raises(OSError, match="power cut"):
        migrate.upgrade(connection, "0003", folder)
    assert not connection.in_transaction
    assert migrate.version(connection) == "0002"
    assert {row[1] for row in schema(connection)} - {row[1] for row in before} == {"one"}

    second.write_text(step.format(revision="0003", before="0002", table="two", then="pass"))
    migrate.upgrade(connection, "0003", folder)
    assert migrate.version(connection) == "0003"


def test_a_schema_half_made_is_not_there(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE turns (x)")
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate.create(connection)
    assert [row[1] for row in schema(connection)] == ["turns"]
