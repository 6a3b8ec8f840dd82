"""The first look, run by `make demo`: one conversation over both doors, with a real model, on this machine alone.

Starts a small local model (examples/local_model.py) and `agentspace up` in a home of its own on free ports, talks over
the JSON WebSocket and over gRPC in one session, shows the context and the usage with the command line, and stops
everything. Exits 0 when every turn got an answer.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import local_model

from agentspace.client.conversation import Client
from agentspace.client.gateway import Gateway
from agentspace.v1 import turn_pb2

COMMAND = str(Path(sys.executable).with_name("agentspace"))
# Also on a machine that is busy with something else.
PATIENCE_SECONDS = 150
STOP_SECONDS = 20

OVER_WEBSOCKET = ("Give me three tips for staying healthy.", "Which foods belong to a balanced diet?")
OVER_GRPC = "How much water should I drink a day?"


@asynccontextmanager
async def process(*command: str, **options: Any) -> AsyncIterator[Process]:
    """A child process, stopped at the end."""
    child = await asyncio.create_subprocess_exec(*command, **options)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()


@asynccontextmanager
async def model(folder: Path) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """The model to use and the environment that says where it is."""
    if local_model.available():
        print(f"Loading a small real model, {local_model.ALIAS}.", flush=True)
        with (folder / "model.log").open("wb") as log:
            async with process(sys.executable, local_model.__file__, "0", stdout=PIPE, stderr=log) as server:
                assert server.stdout is not None
                if ready := await server.stdout.readline():
                    yield f"local/{local_model.ALIAS}", {"AGENTSPACE_LOCAL_URL": json.loads(ready)["url"]}
                    return
    print("The local model's wheels do not run here, so the scripted model answers instead.", flush=True)
    yield "scripted/echo", {}


@asynccontextmanager
async def telling(log: str) -> AsyncIterator[None]:
    """When something fails inside, show the end of the servers' log."""
    try:
        yield
    except BaseException:
        sys.stderr.write(content(Path(log))[-4000:])
        raise


async def running(home: Path, up: Process) -> dict[str, Any]:
    """Show what `up` says until it is ready; returns what runtime.json says."""
    assert up.stdout is not None
    while line := (await up.stdout.readline()).decode().rstrip():
        print(line, flush=True)
        if line == "ready":
            found: dict[str, Any] = json.loads(content(home / "runtime.json"))
            return found
    raise SystemExit("agentspace up did not get ready")


def content(file: Path) -> str:
    """The text of a file."""
    return file.read_text(encoding="utf-8", errors="replace")


async def over_websocket(url: str, questions: tuple[str, ...]) -> str:
    """Ask in a new session; returns its id."""
    session_id = ""
    async with Client(url) as client:
        for question in questions:
            print(f"\nyou    {question}\nmodel  ", end="")
            async with aclosing(client.chat(question, sessionId=session_id)) as frames:
                async for frame in frames:
                    session_id = frame.get("sessionId") or session_id
                    if frame["type"] == "chat.stream.delta":
                        print(frame["delta"], end="", flush=True)
                    elif frame["type"] == "error":
                        raise SystemExit(f"\n{frame['code']}: {frame['message']}")
            print()
    return session_id


async def over_grpc(target: str, session_id: str, question: str) -> None:
    """Ask in the session that is there."""
    print(f"\nyou    {question}\nmodel  ", end="")
    async with Gateway(target) as gateway:
        async for event in gateway.chat(question, session_id=session_id):
            if isinstance(event, turn_pb2.TextDelta):
                print(event.delta, end="", flush=True)
    print()


def show(environment: dict[str, str], *arguments: str) -> None:
    """Run one command of the command line and show it."""
    print(f"\n$ agentspace {' '.join(arguments)}", flush=True)
    subprocess.run([COMMAND, *arguments], env=environment, check=True)


def heading(text: str) -> None:
    """A line between the parts."""
    print(f"\n--- {text} ---", flush=True)


async def main() -> None:
    """The whole demonstration."""
    with tempfile.TemporaryDirectory(prefix="agentspace-demo-") as folder:
        home = Path(folder) / "home"
        async with asyncio.timeout(PATIENCE_SECONDS), model(Path(folder)) as (name, where):
            theirs = {key: value for key, value in os.environ.items() if not key.startswith("AGENTSPACE_")}
            environment = {**theirs, "AGENTSPACE_HOME": str(home), **where}
            up = (COMMAND, "up", "--host", "127.0.0.1", "--port", "0", "--grpc-port", "0", "--home", str(home))
            heading("agentspace up")
            with (Path(folder) / "up.log").open("wb") as log:
                async with (
                    process(*up, "--model", name, env=environment, stdout=PIPE, stderr=log) as servers,
                    telling(log.name),
                ):
                    runtime = await running(home, servers)
                    heading(f"over the WebSocket, port {runtime['port']}")
                    session_id = await over_websocket(f"http://127.0.0.1:{runtime['port']}", OVER_WEBSOCKET)
                    heading(f"over gRPC, port {runtime['grpcPort']}, in the same session")
                    await over_grpc(f"127.0.0.1:{runtime['grpcPort']}", session_id, OVER_GRPC)
                    heading("what the model would be sent next, and what was used")
                    show(environment, "context", session_id)
                    show(environment, "usage")
    print("\nThat was one session, kept by the gateway, over two doors. Your own: make up")


if __name__ == "__main__":
    asyncio.run(main())
