"""Pages of other sites, and other names for this machine: refused at every path, before anything else is looked at."""

import asyncio
import json

import aiohttp
import pytest

from tests.fixtures.stack import Talk
from tests.journeys.conftest import House

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = ("/gateway", "/health", "/ready", "/metrics", "/keys/anthropic", "/", "/inspector.js")
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
# {port} is the bridge's own.
GOOD_HOSTS = (
    "127.0.0.1:{port}",
    "localhost:{port}",
    "LOCALHOST:{port}",
    "localhost",
    "127.0.0.2:{port}",
    "[::1]:{port}",
)
BAD_HOSTS = (
    "evil.example",
    "evil.example:{port}",
    "localhost.evil.example:{port}",
    "127.0.0.1.evil.example:{port}",
    "127.0.0.1.nip.io",
    "evil.localhost.example",
    "evil-localhost:{port}",
    "localhost:{port}.evil.example",
    "localhost@evil.example",
    "evil.example#localhost",
    "0.0.0.0:{port}",
    "169.254.169.254",
    "10.0.0.1:{port}",
    "[::ffff:10.0.0.1]",
    "2130706433",
    "",
)
GOOD_ORIGINS = ("http://127.0.0.1:{port}", "https://127.0.0.1:{port}")
BAD_ORIGINS = (
    "https://evil.example",
    "http://evil.example:{port}",
    "null",
    "",
    "http://127.0.0.1:{port}.evil.example",
    "http://127.0.0.1:{port}@evil.example",
    "http://evil.example/http://127.0.0.1:{port}",
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}1",
    "http://127.0.0.1:1",
    "http://127.0.0.1",
    "http://localhost:{port}",
    "http://evil127.0.0.1:{port}",
    "HTTP://127.0.0.1:{port}",
    "ws://127.0.0.1:{port}",
    "file://",
    "chrome-extension://abcdefghijklmnop",
    "http://127.0.0.1:{port} http://evil.example",
    "*",
)


async def ask(house: House, path: str, *lines: str) -> tuple[int, str]:
    """One raw request with exactly these header lines: status and what follows the head."""
    port = house.stack.port
    upgrade = UPGRADE if path.startswith("/gateway") else ("Connection: close",)
    head = "\r\n".join((f"GET {path} HTTP/1.1", *(line.format(port=port) for line in lines), *upgrade, "", ""))
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            status = int(answer.split()[1])
            rest = b"" if status == 101 else await reader.read(65536)
            return status, rest.decode()
        finally:
            writer.close()


async def allowed(house: House, path: str) -> int:
    """What a request that nothing is wrong with is answered."""
    return (await ask(house, path, "Host: 127.0.0.1:{port}"))[0]


@pytest.mark.requirement("guard.host")
@pytest.mark.parametrize("path", PATHS)
async def test_only_our_own_names_are_served(house: House, path: str) -> None:
    usual = await allowed(house, path)
    assert usual == {"/gateway": 101, "/keys/anthropic": 401}.get(path, 200)
    for host in GOOD_HOSTS:
        assert (await ask(house, path, f"Host: {host}"))[0] == usual, host
    for lines in [(f"Host: {host}",) for host in BAD_HOSTS] + [("Host: localhost", "Host: evil.example")]:
        for token in ((), (f"Authorization: Bearer {house.stack.token}",)):
            status, body = await ask(house, path, *lines, *token)
            # The server itself refuses what is no request at all.
            assert status in (400, 403), (lines, status, body)
            assert house.stack.token not in body
            if status == 403:
                assert json.loads(body)["code"] == "FORBIDDEN"
                assert "evil" not in body


@pytest.mark.requirement("guard.host")
async def test_no_host_and_a_host_in_the_target(house: House) -> None:
    for path in PATHS:
        assert (await ask(house, path))[0] in (400, 403)
        assert (await ask(house, f"http://evil.example{path}", "Host: evil.example"))[0] in (400, 403)


@pytest.mark.requirement("guard.origin")
@pytest.mark.parametrize("path", PATHS)
async def test_only_our_own_pages_get_in(house: House, path: str) -> None:
    usual = await allowed(house, path)
    for origin in GOOD_ORIGINS:
        assert (await ask(house, path, "Host: 127.0.0.1:{port}", f"Origin: {origin}"))[0] == usual, origin
    # Same-origin under the name the page was opened with.
    assert (await ask(house, path, "Host: localhost:{port}", "Origin: http://localhost:{port}"))[0] == usual
    cases: list[tuple[str, ...]] = [(f"Origin: {origin}",) for origin in BAD_ORIGINS]
    cases.append(("Origin: http://127.0.0.1:{port}", "Origin: https://evil.example"))
    for lines in cases:
        for token in ((), (f"Authorization: Bearer {house.stack.token}",)):
            status, body = await ask(house, path, "Host: 127.0.0.1:{port}", *lines, *token)
            assert status == 403, (lines, status, body)
            assert json.loads(body)["code"] == "FORBIDDEN"
    # Of what gets in nothing says that pages of other sites may read it.
    own = {"Origin": house.stack.url}
    async with aiohttp.ClientSession() as session, session.get(f"{house.stack.url}{path}", headers=own) as answer:
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.requirement("guard.origin")
async def test_preflights_are_not_answered(house: House) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.stack.port)
    writer.write(
        f"OPTIONS /keys/anthropic HTTP/1.1\r\nHost: 127.0.0.1:{house.stack.port}\r\nOrigin: https://evil.example\r\n"
        "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: authorization\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    async with asyncio.timeout(10):
        answer = (await reader.read()).decode()
    writer.close()
    assert answer.split()[1] == "403"
    assert "access-control" not in answer.lower()


@pytest.mark.requirement("guard.origin")
@pytest.mark.requirement("keys.operator-only")
async def test_token_counts_only_in_its_header(house: House) -> None:
    token = house.stack.token
    for name in ("token", "access_token", "authorization", "bearer"):
        status, body = await ask(house, f"/keys/anthropic?{name}={token}", "Host: 127.0.0.1:{port}")
        assert (status, json.loads(body)["code"]) == (401, "UNAUTHENTICATED")
        assert token not in body
    cookie = f"Cookie: token={token}"
    assert (await ask(house, "/keys/anthropic", "Host: 127.0.0.1:{port}", cookie))[0] == 401
    # With it in the URL a WebSocket is still the local principal's.
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{house.stack.url}/gateway?token={token}", protocols=("agentspace.v2",)) as socket,
    ):
        talk = Talk(socket)
        hello = await talk.hear()
        assert (hello["type"], hello["principal"]) == ("hello", "local")
        await talk.say("key.list")
        assert (await talk.hear())["code"] == "MISSING_SCOPE"
    wrong = (
        "Bearer wrong",
        f"Basic {token}",
        f"Bearer {token}x",
        token,
        f"Bearer  {token}",
        "Bearer",
        "Bearer ' OR 1=1",
    )
    for value in wrong:
        status, body = await ask(house, "/keys/anthropic", "Host: 127.0.0.1:{port}", f"Authorization: {value}")
        assert (status, json.loads(body)["code"]) == (401, "UNAUTHENTICATED"), value
    # A key is not stored, but the token is good.
    right = f"Authorization: Bearer {token}"
    status, body = await ask(house, "/keys/anthropic", "Host: 127.0.0.1:{port}", right)
    assert (status, json.loads(body)["code"]) == (404, "PROVIDER_KEY_MISSING")
    assert token not in house.stack.logs()
