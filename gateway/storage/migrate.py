"""The schema of a database file: which one it has, the present one for a fresh file, migrations for an older one.

Called by file. Alembic takes most of a second to load, so only a file that needs a migration loads it.
"""

import sqlite3
from pathlib import Path

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateIndex, CreateTable

from gateway.storage.tables import HEAD, TRIGGERS, metadata

__all__ = ["HEAD", "create", "upgrade", "version"]

_VERSION_TABLE = (
    "CREATE TABLE alembic_version (\n\tversion_num VARCHAR(32) NOT NULL, \n\t"
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)\n)"
)


def version(connection: sqlite3.Connection) -> str | None:
    """The migration the file is at; None when it has no schema of ours."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def create(connection: sqlite3.Connection) -> None:
    """The present schema in an empty file, in one transaction."""
    dialect = SQLiteDialect_pysqlite()
    connection.execute("BEGIN IMMEDIATE")
    try:
        for table in metadata.sorted_tables:
            connection.execute(str(CreateTable(table).compile(dialect=dialect)).strip())
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                connection.execute(str(CreateIndex(index).compile(dialect=dialect)).strip())
        for trigger in TRIGGERS:
            connection.execute(trigger)
        connection.execute(_VERSION_TABLE)
        connection.execute("INSERT INTO alembic_version VALUES (?)", (HEAD,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def upgrade(connection: sqlite3.Connection, to: str = HEAD, folder: Path | None = None) -> None:
    """Run the migrations that lead to `to`, each in a transaction of its own: what is killed half-way goes on later.

    `folder` holds the migrations; by default those of the product.
    """
    from alembic import command
    from alembic.config import Config

    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)

    @event.listens_for(engine, "begin")
    def begin(link: Connection) -> None:
        link.exec_driver_sql("BEGIN IMMEDIATE")

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    if folder is not None:
        config.set_main_option("version_locations", str(folder))
        config.set_main_option("path_separator", "newline")
    with engine.connect() as link:
        config.attributes["connection"] = link
        command.upgrade(config, to)
