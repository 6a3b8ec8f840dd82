"""Clients that know nothing of us: grpcurl and buf find the services by reflection, talk, and read errors."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agentspace.v1 import chat_service_pb2
from gateway.app import App
from tests.gateway.running import config, running

pytestmark = pytest.mark.asyncio(loop_scope="module")
BIN = Path(sys.executable).parent
SERVICES = {"Audit", "Chat", "Context", "Gateway", "Key", "Session", "Usage"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    async with running(config(tmp_path_factory.mktemp("grpcurl") / "home")) as started:
        yield started


async def run(*command: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(50):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def grpcurl(
    app: App, *arguments: str, data: dict[str, Any] | None = None, local: bool = False
) -> tuple[int, str, str]:
    given = [] if data is None else ["-d", json.dumps(data)]
    where = ["-unix", str(app._config.socket)] if local else [f"127.0.0.1:{app.grpc_port}"]
    return await run(str(BIN / "grpcurl"), "-plaintext", *given, *where, *arguments)


async def buf(app: App, reflection: str, method: str, data: dict[str, Any]) -> tuple[int, str, str]:
    http = ["--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", reflection]
    url = f"http://127.0.0.1:{app.grpc_port}/agentspace.v1.{method}"
    return await run(str(BIN / "buf"), "curl", *http, "-d", json.dumps(data), url)


def objects(text: str) -> list[dict[str, Any]]:
    """JSON objects one after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text.rstrip()):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


@pytest.mark.requirement("health.serving")
@pytest.mark.parametrize("local", [False, True])
async def test_list(app: App, local: bool) -> None:
    code, out, _ = await grpcurl(app, "list", local=local)
    assert code == 0
    listed = set(out.split())
    assert listed >= {f"agentspace.v1.{name}Service" for name in SERVICES}
    assert listed >= {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


@pytest.mark.parametrize(
    ("symbol", "text"),
    [
        ("agentspace.v1.ChatService", "service ChatService"),
        ("agentspace.v1.ChatService.SendMessage", "rpc SendMessage"),
        ("agentspace.v1.SendMessageRequest", "message SendMessageRequest"),
        ("agentspace.v1.SendMessageRequest.content", "string content"),
        ("agentspace.v1.ErrorReason", "ERROR_REASON_STREAM_IN_PROGRESS"),
    ],
)
async def test_describe(app: App, symbol: str, text: str) -> None:
    code, out, err = await grpcurl(app, "describe", symbol)
    assert code == 0, err
    assert text in out


async def test_describe_what_is_not_there(app: App) -> None:
    code, _, err = await grpcurl(app, "describe", "agentspace.v1.Nonsense")
    assert code != 0
    assert "not found" in err.lower()


@pytest.mark.requirement("health.serving")
async def test_health(app: App) -> None:
    for data in ({}, {"service": "agentspace.v1.ChatService"}):
        code, out, _ = await grpcurl(app, "grpc.health.v1.Health/Check", data=data)
        assert (code, json.loads(out)) == (0, {"status": "SERVING"})


@pytest.mark.parametrize("local", [False, True])
async def test_create_chat_and_list(app: App, local: bool) -> None:
    _, out, _ = await grpcurl(
        app, "agentspace.v1.SessionService/CreateSession", data={"title": "by grpcurl"}, local=local
    )
    session = json.loads(out)["session"]
    data = {"sessionId": session["sessionId"], "content": "hello from outside"}
    code, out, _ = await grpcurl(app, "agentspace.v1.ChatService/SendMessage", data=data, local=local)
    events = objects(out)
    assert code == 0
    assert "".join(event.get("text", {}).get("delta", "") for event in events) == "hello from outside"
    assert list(events[-1]) == ["ended"]
    _, out, _ = await grpcurl(app, "agentspace.v1.SessionService/ListSessions", data={}, local=local)
    assert session["sessionId"] in {listed["sessionId"] for listed in json.loads(out)["sessions"]}


@pytest.mark.parametrize("local", [False, True])
async def test_errors_have_their_details(app: App, local: bool) -> None:
    code, _, err = await grpcurl(
        app, "agentspace.v1.SessionService/GetSession", data={"sessionId": "none"}, local=local
    )
    assert code != 0
    for part in ("NotFound", "google.rpc.ErrorInfo", "SESSION_NOT_FOUND", "agentspace.dev", '"sessionId":"none"'):
        assert part in err
    _, _, err = await grpcurl(app, "agentspace.v1.ChatService/SendMessage", data={"content": " "}, local=local)
    for part in ("InvalidArgument", "INVALID_MESSAGE", "google.rpc.BadRequest", '"field":"content"'):
        assert part in err


@pytest.mark.requirement("health.serving")
@pytest.mark.parametrize("reflection", ["grpc-v1", "grpc-v1alpha"])
async def test_buf_curl(app: App, reflection: str) -> None:
    code, out, err = await buf(app, reflection, "ChatService/SendMessage", {"content": "hello from buf"})
    assert code == 0, err
    events = objects(out)
    members = chat_service_pb2.SendMessageResponse.DESCRIPTOR.oneofs_by_name["event"].fields
    assert {name for event in events for name in event} <= {field.json_name for field in members}
    assert "".join(event.get("text", {}).get("delta", "") for event in events) == "hello from buf"
    code, _, err = await buf(app, reflection, "SessionService/GetSession", {"sessionId": "none"})
    assert code != 0
    assert "google.rpc.ErrorInfo" in err
