"""SqlTransaction: the repositories of all nouns over one connection. Handed to works by writer and readers."""

from sqlalchemy import text

from gateway.storage.audit import SqlAudit
from gateway.storage.keys import SqlKeys
from gateway.storage.messages import SqlMessages
from gateway.storage.numbers import Numbers
from gateway.storage.sessions import SqlSessions
from gateway.storage.statement import Link, Statement
from gateway.storage.turns import SqlTurns
from gateway.storage.usage import SqlUsage

_PROOF = Statement(text("PRAGMA user_version = 0"))


class SqlTransaction:
    """See the port `Transaction`. One serves every transaction of its connection; call `forget` after a rollback."""

    __slots__ = ("_audit", "_keys", "_link", "_messages", "_numbers", "_sessions", "_turns", "_usage")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers = numbers = Numbers(link)
        self._sessions = SqlSessions(link, numbers)
        self._messages = SqlMessages(link, numbers)
        self._turns = SqlTurns(link, numbers)
        self._usage = SqlUsage(link, numbers)
        self._keys = SqlKeys(link)
        self._audit = SqlAudit(link)

    @property
    def sessions(self) -> SqlSessions:
        """Sessions."""
        return self._sessions

    @property
    def messages(self) -> SqlMessages:
        """Their messages."""
        return self._messages

    @property
    def turns(self) -> SqlTurns:
        """Their turns."""
        return self._turns

    @property
    def usage(self) -> SqlUsage:
        """The ledger."""
        return self._usage

    @property
    def keys(self) -> SqlKeys:
        """Provider keys."""
        return self._keys

    @property
    def audit(self) -> SqlAudit:
        """The audit log."""
        return self._audit

    def forget(self) -> None:
        """What was written since the last commit does not count."""
        self._numbers.forget()

    def prove_writable(self) -> None:
        """Write a page that means nothing."""
        self._link.run(_PROOF)
