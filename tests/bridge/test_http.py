"""http.py over a real server: the guard on every route, health, readiness, metrics, keys and the inspector."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.http import STATIC
from tests.bridge.conftest import REFUSALS, TOKEN, config, running_bridge

ROUTES = ["/", "/health", "/ready", "/metrics", "/keys/anthropic", "/gateway", "/inspector.js", "/nothing"]
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
WS = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.fixture
async def client(port: int) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=aiohttp.ClientTimeout(5)) as session:
        yield session


async def get(client: aiohttp.ClientSession, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    async with client.get(path, headers=headers) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "bad",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
    ids=str,
)
async def test_foreign_names_are_refused_everywhere(
    client: aiohttp.ClientSession, path: str, bad: dict[str, str]
) -> None:
    headers = {**OPERATOR, **bad, **(WS if path == "/gateway" else {})}
    assert (await get(client, path, headers))[0] == 403


async def test_own_and_allowed_origins_are_let_in(client: aiohttp.ClientSession, port: int) -> None:
    for origin in (f"http://127.0.0.1:{port}", "https://app.example"):
        assert (await get(client, "/health", {"Origin": origin}))[0] == 200


async def test_health(client: aiohttp.ClientSession) -> None:
    status, body = await get(client, "/health")
    assert (status, body["status"]) == (200, "ok")
    assert body["uptime"] >= 0


async def test_ready(client: aiohttp.ClientSession) -> None:
    parts = [{"name": "storage", "ready": True, "detail": ""}]
    assert await get(client, "/ready") == (200, {"ready": True, "parts": parts})


async def test_metrics_are_both_servers(client: aiohttp.ClientSession) -> None:
    async with client.get("/metrics") as response:
        text = await response.text()
    assert "agentspace_bridge_connections 0.0\n" in text
    assert 'agentspace_bridge_frames_total{direction="sent"} 0.0\n' in text
    assert "agentspace_turns_total 1\n" in text


async def test_without_gateway(socket_path: Path) -> None:
    async with running_bridge(config(socket_path)) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        status, body = await get(client, "/ready")
        assert (status, body["ready"], body["parts"][0]["name"]) == (503, False, "gateway")
        assert (await get(client, "/health"))[0] == 200
        status, body = await get(client, "/keys/anthropic", OPERATOR)
        assert (status, body["code"]) == (503, "GATEWAY_UNREACHABLE")
        async with client.get("/metrics") as response:
            assert "agentspace_bridge_connections" in await response.text()


async def test_key_is_read_with_a_token(client: aiohttp.ClientSession) -> None:
    async with client.get("/keys/anthropic", headers=OPERATOR) as response:
        assert await response.json() == {"provider": "anthropic", "key": "sk-secret"}
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("value", [None, "Bearer wrong", "Basic b3BlcmF0b3I=", "Bearer "])
async def test_key_needs_a_good_token(client: aiohttp.ClientSession, value: str | None) -> None:
    status, body = await get(client, "/keys/anthropic", None if value is None else {"Authorization": value})
    assert (status, body["code"]) == (401, "UNAUTHENTICATED")


async def test_token_in_the_address_is_not_read(client: aiohttp.ClientSession) -> None:
    assert (await get(client, f"/keys/anthropic?token={TOKEN}&authorization=Bearer%20{TOKEN}"))[0] == 401


@pytest.mark.parametrize(
    ("provider", "status"), [("nobody", 400), ("empty", 404), ("sealed", 503), ("unheard", 503), ("denied", 403)]
)
async def test_key_that_is_not_served(client: aiohttp.ClientSession, provider: str, status: int) -> None:
    answered, body = await get(client, f"/keys/{provider}", OPERATOR)
    assert (answered, body["code"]) == (status, REFUSALS[provider][1])


@pytest.mark.parametrize("path", [path for path in ROUTES if path != "/health"])
async def test_peer_behind_a_proxy_needs_a_token(client: aiohttp.ClientSession, path: str) -> None:
    far = {"X-Forwarded-For": "10.0.0.1"}
    assert (await get(client, path, far))[0] == 401
    assert (await get(client, path, {**far, "Authorization": "Bearer wrong"}))[0] == 401
    async with client.get(path, headers={**far, **OPERATOR}) as response:
        assert response.status not in (401, 403)


async def test_peer_behind_a_proxy_may_ask_for_health(client: aiohttp.ClientSession) -> None:
    assert (await get(client, "/health", {"X-Forwarded-For": "10.0.0.1"}))[0] == 200


@pytest.mark.parametrize("value", ["Basic b3BlcmF0b3I=", "Bearer ", "Bearer wrong", "nonsense"])
async def test_health_needs_no_authentication(client: aiohttp.ClientSession, value: str) -> None:
    assert (await get(client, "/health", {"Authorization": value}))[0] == 200


async def test_inspector_page_takes_from_nowhere_else(client: aiohttp.ClientSession) -> None:
    for path, kind in (("/", "text/html"), ("/inspector.js", "text/javascript")):
        async with client.get(path) as response:
            assert (response.status, response.content_type) == (200, kind)
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            text = await response.text()
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8")
        assert "location.search" not in text
        assert "location.hash" not in text
        assert "innerHTML" not in text


async def test_unfinished_head_is_dropped(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow:")
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_over_long_token_is_not_logged(port: int, caplog: pytest.LogCaptureFixture) -> None:
    from bridge.telemetry import quiet_bad_requests

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + b"s3cret" * 3000 + b"\r\n\r\n")
    async with asyncio.timeout(5):
        assert b"400" in await reader.readline()
    writer.close()
    await writer.wait_closed()
    written = [record for record in caplog.records if quiet_bad_requests(record)]
    assert not any("s3cret" in record.getMessage() or record.exc_info for record in written)
