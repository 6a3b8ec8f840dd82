import pytest

from gateway.storage.database import Database
from tests.gateway.storage import suite_messages
from tests.gateway.storage.samples import cases


@pytest.mark.parametrize("case", cases(suite_messages), ids=lambda case: case.__name__)
async def test_on_sqlite(case, store: Database) -> None:
    await case(store)
