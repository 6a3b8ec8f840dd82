"""A gateway with scripted models: `app` is one for all tests of a file, `fresh` has a home of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio

from gateway.app import App
from tests.gateway.running import Peer, bearer, config, dialled, running, token


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rpc") / "home"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(home: Path) -> AsyncIterator[App]:
    async with running(config(home)) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(tmp_path: Path) -> AsyncIterator[App]:
    async with running(config(tmp_path / "home")) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def peer(app: App) -> AsyncIterator[Peer]:
    peer = Peer(app)
    yield peer
    peer.connection.close()


@pytest_asyncio.fixture(loop_scope="module")
async def channel(app: App) -> AsyncIterator[grpc.aio.Channel]:
    async with dialled(f"127.0.0.1:{app.grpc_port}") as channel:
        yield channel


@pytest.fixture
def operator(app: App, home: Path) -> tuple[tuple[str, str], ...]:
    return bearer(token(home))
