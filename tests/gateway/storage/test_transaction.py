from pathlib import Path

from gateway.storage.file import prepare
from gateway.storage.statement import Link
from gateway.storage.transaction import SqlTransaction
from gateway.usecases.ports import Transaction
from tests.gateway.storage.samples import session


def test_has_every_noun_on_one_connection(tmp_path: Path) -> None:
    connection = prepare(tmp_path / "agentspace.db")
    transaction: Transaction = SqlTransaction(Link(connection))
    connection.execute("BEGIN")
    transaction.sessions.insert(session())
    assert transaction.messages.history("s1") == []
    assert transaction.turns.unfinished() == []
    assert transaction.usage.totals(None) == {}
    assert transaction.keys.all() == []
    assert transaction.audit.page(after=None, limit=1) == []
    connection.execute("ROLLBACK")
    assert transaction.sessions.get("s1") is None
    connection.close()
