"""A store on a real SQLite file, and rows to put into it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.storage import file
from gateway.storage.database import Database
from tests.gateway.storage.samples import damaged

pytest.register_assert_rewrite(
    *(
        f"tests.gateway.storage.suite_{noun}"
        for noun in ("sessions", "messages", "turns", "usage", "keys", "audit", "store")
    )
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database will lie; nothing is there yet."""
    return tmp_path / "home" / "agentspace.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Database]:
    """An open, empty store."""
    database = await Database.open(path)
    yield database
    await database.close()


@pytest.fixture
async def damaged_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Open, as a file is that is too large to be checked at the start. The history of "s1" is damaged."""
    path.parent.mkdir()
    damaged(path)
    monkeypatch.setattr(file, "_CHECKED_BYTES", 0)
    database = await Database.open(path)
    yield database
    await database.close()
