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


@pytest.fixture(params=["network", "local"])
def server(request: pytest.FixtureRequest) -> str:
    """Which of the two servers is dialled."""
    return str(request.param)


@pytest.fixture
def target(app: App, home: Path, server: str) -> str:
    """Where to dial."""
    return _address(app, home, server)


@pytest.fixture
def fresh_target(fresh: App, tmp_path: Path, server: str) -> str:
    """Where to dial."""
    return _address(fresh, tmp_path / "home", server)


@pytest_asyncio.fixture(loop_scope="module")
async def channel(target: str) -> AsyncIterator[grpc.aio.Channel]:
    async with dialled(target) as channel:
        yield channel


@pytest.fixture
def operator(app: App, home: Path) -> tuple[tuple[str, str], ...]:
    return bearer(token(home))


def _address(app: App, home: Path, server: str) -> str:
    return f"127.0.0.1:{app.grpc_port}" if server == "network" else f"unix:{home / 'gateway.sock'}"
