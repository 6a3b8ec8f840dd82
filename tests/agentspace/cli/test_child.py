"""A server process that `up` starts."""

from pathlib import Path

import pytest

from agentspace.cli.child import Child, ChildError
from tests.agentspace.servers import notes, write_servers


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_servers(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_it_says_ready_and_stops(folder: Path) -> None:
    child = await Child.start("gateway", "--grpc-port", "0")
    assert (await child.ready())["grpcPort"] > 0
    assert child.running
    await child.stop(20)
    assert (await child.ended(), child.running) == (0, False)
    assert notes(folder)[-1] == "gateway terminated"


async def test_one_that_does_not_start_says_so(folder: Path) -> None:
    (folder / "gateway.fails").touch()
    child = await Child.start("gateway", "--grpc-port", "0")
    with pytest.raises(ChildError, match="exit code 7"):
        await child.ready()


async def test_one_that_does_not_stop_is_killed(folder: Path) -> None:
    (folder / "gateway.stuck").touch()
    child = await Child.start("gateway", "--grpc-port", "0")
    await child.ready()
    await child.stop(0.05)
    assert await child.ended() == -9
