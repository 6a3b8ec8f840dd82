"""A store on a real SQLite file, and rows to put into it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.storage.database import Database

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
