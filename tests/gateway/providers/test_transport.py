"""The transport sends what it should and uses connections again when it can."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.providers.connection import CutOffError, NotSentError
from gateway.providers.transport import KEEP_IDLE_SECONDS, Transport
from tests.gateway.providers.answers import Kept, saying, serving

Made = Callable[[str], Transport]
HI = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


@pytest.fixture
async def transport() -> AsyncIterator[Made]:
    """Makes transports to an address, and closes them."""
    made: list[Transport] = []

    def make(url: str) -> Transport:
        made.append(Transport(url, "test"))
        return made[-1]

    async with asyncio.timeout(20):
        yield make
    for one in made:
        await one.close()


async def get(transport: Transport, enough: int = 1 << 30) -> bytes:
    kept = Kept(enough)
    await transport.exchange("GET", "/", "key", None, kept)
    return kept.text


async def test_sends_and_reads(transport: Made) -> None:
    heard = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.readuntil(b'{"a":1}'))
        writer.write(b"HTTP/1.1 201 Made\r\nx-y: z\r\nset-cookie: a=b\r\nconnection: close\r\n")
        writer.write(b"content-length: 2\r\n\r\nhi")

    async with serving(answer) as server:
        opened = transport(f"{server.url}/under/")
        for _ in range(2):
            heard.clear()
            kept = Kept()
            await opened.exchange("POST", "/x?y=1", "key", b'{"a":1}', kept)
            assert (kept.status, kept.headers["x-y"], kept.text) == (201, "z", b"hi")
    assert heard.startswith(b"POST /under/x?y=1 HTTP/1.1\r\n")
    assert b"Host: 127.0.0.1:%d\r\n" % server.port in heard
    sent = bytes(heard).lower()
    for line in (
        b"authorization: bearer key",
        b"content-type: application/json",
        b"content-length: 7",
        b"accept-encoding: identity",
    ):
        assert sent.count(line + b"\r\n") == 1
    assert b"cookie" not in sent


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "nothing", "http://[::1", "", "http://127.0.0.1:99999"])
async def test_an_address_that_is_none(transport: Made, url: str) -> None:
    for _ in range(2):
        with pytest.raises(NotSentError):
            await get(transport(url))


async def test_a_cut_answer_may_have_been_executed(transport: Made) -> None:
    async with serving(saying(HI[:-1])) as server:
        with pytest.raises(CutOffError):
            await get(transport(server.url))


async def test_a_read_body_gives_its_connection_back_and_an_unread_one_does_not(transport: Made) -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for number in range(3):
            await reader.readuntil(b"\r\n\r\n")
            # The third answer has an end that never comes.
            writer.write(HI if number < 2 else b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\nhi")
        assert await reader.read() == b""

    async with serving(answer) as server:
        opened = transport(server.url)
        for expected in (1, 1, 1, 2, 2):
            assert await get(opened, enough=2) == b"hi"
            assert connections == expected
        await opened.close()


async def test_as_many_connections_as_exchanges_at_a_time(transport: Made) -> None:
    go = asyncio.Event()
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 3:
            go.set()
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await go.wait()
            writer.write(HI)

    async with serving(answer) as server:
        opened = transport(server.url)
        for _ in range(2):
            assert await asyncio.gather(*(get(opened) for _ in range(3))) == [b"hi"] * 3
        assert connections == 3
        await opened.close()


async def test_a_connection_that_was_closed_meanwhile_is_not_used(transport: Made) -> None:
    """Even if the event loop has not seen the end yet."""
    closed = asyncio.Queue[None]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HI)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.put_nowait(None)

    async with serving(answer) as server:
        opened = transport(server.url)
        for _ in range(3):
            assert await get(opened) == b"hi"
            await closed.get()


async def test_idle_connections_are_closed_after_a_while(transport: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.providers.transport.KEEP_IDLE_SECONDS", 0.01)
    ends = asyncio.Queue[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HI)
        ends.put_nowait(await reader.read())

    async with serving(answer) as server:
        opened = transport(server.url)
        assert await get(opened) == b"hi"
        assert await ends.get() == b""


def test_idle_connections_are_dropped_before_servers_drop_them() -> None:
    # Node and uvicorn wait five seconds.
    assert KEEP_IDLE_SECONDS < 5
