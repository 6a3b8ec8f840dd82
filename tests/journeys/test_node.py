"""A client in another language, from the .proto files alone: examples/node, with what npm installs for it."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.app import App
from tests.gateway.running import config, running

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="Node.js and npm are not installed"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its packages."""
    folder = tmp_path_factory.mktemp("node") / "example"
    shutil.copytree(ROOT / "examples" / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    code, _, err = await run("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", cwd=folder)
    if code and any(word in err for word in ("ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET")):
        pytest.skip("the npm registry cannot be reached")
    assert code == 0, err
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    async with running(config(tmp_path_factory.mktemp("served") / "home")) as started:
        yield started


async def run(*command: str, cwd: Path) -> tuple[int, str, str]:
    pipe = asyncio.subprocess.PIPE
    seen = {**os.environ, "AGENTSPACE_PROTO": str(ROOT / "proto")}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=seen, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(150):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_streams_a_chat(example: Path, app: App) -> None:
    code, out, err = await run("node", "chat.js", "hello from Node", f"127.0.0.1:{app.grpc_port}", cwd=example)
    assert (code, out) == (0, "hello from Node\n"), err
    session = err.split()[1]
    code, out, err = await run("node", "chat.js", "and again", f"127.0.0.1:{app.grpc_port}", session, cwd=example)
    assert (code, out, err) == (0, "and again\n", "")


async def test_prints_why_it_failed(example: Path, app: App) -> None:
    code, out, err = await run("node", "chat.js", "x", f"127.0.0.1:{app.grpc_port}", "no-such-session", cwd=example)
    assert (code, out) == (1, "")
    assert "SESSION_NOT_FOUND (agentspace.dev)" in err
    assert '"sessionId":"no-such-session"' in err
