import sqlite3

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select, update

from gateway.storage.statement import Link, Statement, limited, value

things = Table("things", MetaData(), Column("number", Integer), Column("name", Text))
ADD = Statement(insert(things).values(number=value("number"), name=value("name")), "number name")
NAMES = Statement(limited(select(things.c.name).where(things.c.number > value("number"))), "number limit")
RENAME = Statement(update(things).where(things.c.number == value("number")).values(name=value("name")), "name number")


def test_runs_what_core_says() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE things (number, name)")
    link = Link(connection)
    assert [link.run(ADD, number, f"n{number}") for number in range(3)] == [1, 1, 1]
    assert link.all(NAMES, 0, 9) == [("n1",), ("n2",)]
    assert link.all(NAMES, -1, 1) == [("n0",)]
    assert link.one(NAMES, 5, 1) is None
    assert link.run(RENAME, "new", 2) == 1
    assert link.run(RENAME, "new", 7) == 0
    assert link.one(NAMES, 1, 1) == ("new",)
    connection.close()


def test_refuses_parameters_in_another_order() -> None:
    with pytest.raises(ValueError, match="the parameters are name number, not number name"):
        Statement(update(things).where(things.c.number == value("number")).values(name=value("name")), "number name")
