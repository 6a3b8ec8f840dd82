"""Statement: a SQLAlchemy Core statement, compiled once. Link: a driver connection that runs statements.

The repositories declare their statements from the tables and run them through a link. Executing a Core statement costs
several times what SQLite needs for it, so the text is compiled when the module is loaded and given to the driver.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import BindParameter, Select, bindparam, literal_column
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.elements import ClauseElement

Row = tuple[Any, ...]


def value(name: str) -> BindParameter[Any]:
    """A parameter. Its name is no column's: SQLAlchemy keeps those to itself in INSERT and UPDATE."""
    return bindparam(f"{name}_")


def limited(query: Select[Any]) -> Select[Any]:
    """The query with a parameter `limit`. The offset is spelt out, or SQLite's dialect makes a parameter of it."""
    return query.limit(value("limit")).offset(literal_column("0"))


class Statement:
    """`sql` is the text; `parameters` are names of `value`s, in the order in which they are given when it is run."""

    __slots__ = ("sql",)

    def __init__(self, statement: Executable, parameters: str = "") -> None:
        assert isinstance(statement, ClauseElement)
        compiled = statement.compile(dialect=SQLiteDialect_pysqlite(paramstyle="qmark"))
        order = [name.removesuffix("_") for name in getattr(compiled, "positiontup", None) or ()]
        if order != parameters.split():
            raise ValueError(f"the parameters are {' '.join(order)}, not {parameters}")
        self.sql = str(compiled)


class Link:
    """One connection as the repositories see it. For one thread at a time."""

    __slots__ = ("_execute", "_executemany")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany

    def run(self, statement: Statement, *values: Any) -> int:
        """Run it; returns the number of rows changed."""
        return self._execute(statement.sql, values).rowcount

    def insert(self, statement: Statement, *values: Any) -> int:
        """Run it; returns the number of the row that was added."""
        number = self._execute(statement.sql, values).lastrowid
        assert number is not None
        return number

    def run_each(self, statement: Statement, rows: Iterable[Row]) -> int:
        """Run it for each row of values; returns the number of rows changed by all together."""
        return self._executemany(statement.sql, rows).rowcount

    def one(self, statement: Statement, *values: Any) -> Row | None:
        """Its only row, or None."""
        row: Row | None = self._execute(statement.sql, values).fetchone()
        return row

    def each(self, statement: Statement, *values: Any) -> Iterator[Row]:
        """Its rows, each read when it is asked for."""
        return self._execute(statement.sql, values)

    def all(self, statement: Statement, *values: Any) -> list[Row]:
        """Its rows."""
        return self._execute(statement.sql, values).fetchall()
