"""app.py: ports, TLS, the head timer, and the real process from its first line to its exit."""

import asyncio
import json
import signal
import socket
import ssl
import sys
from pathlib import Path

import aiohttp
import pytest
from websockets.asyncio.client import connect

from tests.bridge.conftest import CannedGateway, config, running_bridge

HEAVY = {"anthropic", "sqlalchemy", "tiktoken", "gateway", "agentspace.client"}


def taken() -> socket.socket:
    """A port somebody else listens on."""
    return socket.create_server(("127.0.0.1", 0))


async def test_next_port_is_tried_when_one_is_taken(socket_path: Path) -> None:
    with taken() as other:
        async with running_bridge(config(socket_path, ports=(other.getsockname()[1], 0))) as port:
            assert port not in (0, other.getsockname()[1])


async def test_port_asked_for_is_not_replaced(socket_path: Path) -> None:
    with taken() as other, pytest.raises(OSError, match="in use"):
        async with running_bridge(config(socket_path, ports=(other.getsockname()[1],))):
            pass


async def test_tls(gateway: CannedGateway, socket_path: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    process = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0
    trust = ssl.create_default_context(cafile=certificate)
    async with running_bridge(config(socket_path, certificate=certificate, private_key=key)) as port:
        async with connect(f"wss://localhost:{port}/gateway", ssl=trust) as ws:
            await ws.send("{")
            assert "INVALID_MESSAGE" in str(await ws.recv())
        async with aiohttp.ClientSession() as session, session.get(f"https://localhost:{port}/health", ssl=trust) as ok:
            assert ok.status == 200


async def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for certificate in ("nope.pem", str(broken)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge", "--port", "0", "--tls-cert", certificate, "--tls-key", "k.pem"),
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(20):
            _, why = await process.communicate()
        assert process.returncode == 1
        said = f"the bridge cannot start: the certificate {certificate} with the key k.pem cannot be used: "
        assert why.decode().startswith(said)
        assert why.count(b"\n") == 1


async def test_head_timer_spares_those_who_asked(gateway: CannedGateway, socket_path: Path) -> None:
    async with running_bridge(config(socket_path)) as port, connect(f"ws://127.0.0.1:{port}/gateway") as ws:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            assert await reader.read() == b"", "a connection that says nothing is dropped"
        writer.close()
        await writer.wait_closed()
        await ws.send("{")
        assert "INVALID_MESSAGE" in str(await ws.recv()), "one that asked in time is not"


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_process_says_ready_and_stops_in_order(gateway: CannedGateway, socket_path: Path, stop: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", "--port", "0", "--gateway", f"unix:{socket_path}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(20):
        ready = json.loads(await process.stdout.readline())
        assert ready.keys() == {"event", "port"}
        async with connect(f"ws://127.0.0.1:{ready['port']}/gateway") as ws:
            process.send_signal(stop)
            await ws.wait_closed()
            assert ws.close_code == 1012
        assert await process.wait() == 0
        for line in (await process.stderr.read()).splitlines():
            assert json.loads(line)["level"] != "error"


async def test_nothing_heavy_is_imported() -> None:
    code = "import sys, bridge.__main__; print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert HEAVY.isdisjoint(output.decode().split())
