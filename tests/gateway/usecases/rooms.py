"""What use cases stand on in these tests: a real database, a clock that only moves when told, and shorthands."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.context import ASSISTANT, TEXT, USER
from gateway.domain.error import GatewayError
from gateway.domain.message import ContentBlock, Message
from gateway.domain.session import Session
from gateway.domain.turn import Turn
from gateway.ids import NanoIds
from gateway.providers.catalog import BuiltInCatalog
from gateway.storage.database import Database
from gateway.usecases.live_sessions import LiveSessions
from gateway.usecases.manage_sessions import ManageSessions
from gateway.usecases.ports import Transaction

MODEL = "scripted/echo"


@dataclass
class StillClock:
    ms: int = 1_790_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "agentspace.db")
    yield database
    await database.close()


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def live(store: Database) -> LiveSessions:
    return LiveSessions(store)


@pytest.fixture
def sessions(store: Database, clock: StillClock) -> ManageSessions:
    return ManageSessions(store=store, catalog=BuiltInCatalog(), clock=clock, ids=NanoIds(clock), default_model=MODEL)


Talk = Callable[..., list[Message]]


@pytest.fixture
def talk(clock: StillClock) -> Callable[[Transaction, Session, str], list[Message]]:
    """Stores turns, in a transaction: each word is asked, and answered in capitals; `word?` is not answered."""

    def stored(tx: Transaction, session: Session, words: str) -> list[Message]:
        ids = NanoIds(clock)
        messages = []
        for word in words.split():
            turn = ids.turn()
            texts = [(USER, word)] if word.endswith("?") else [(USER, word), (ASSISTANT, word.upper())]
            for role, text in texts:
                block = ContentBlock(TEXT, text)
                message = Message(ids.message(), session.session_id, turn, role, (block,), "", clock.now_ms())
                messages.append(tx.messages.insert(message))
                tx.sessions.touch(session.session_id, clock.now_ms())
        return messages

    return stored


def a_turn(session: Session, state: int) -> Turn:
    ids = NanoIds(StillClock())
    return Turn(ids.turn(), session.session_id, ids.message(), state, MODEL, 1)


def texts(messages: list[Message] | tuple[Message, ...]) -> str:
    return " ".join(message.blocks[0].text for message in messages)


async def refused(awaitable: object, code: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await awaitable  # type: ignore[misc]
    assert caught.value.reason == error_pb2.ErrorReason.Value(f"ERROR_REASON_{code}")
    return caught.value
