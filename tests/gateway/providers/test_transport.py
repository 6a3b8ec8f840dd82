"""The transport tells what was surely not sent from what may have been, and gives connections back when it can."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest

from gateway.providers.transport import CONTENT, KEEP_IDLE_SECONDS, AiohttpTransport

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=AiohttpTransport(use_proxies=False), timeout=5, trust_env=False) as client:
        yield client


async def serve(answer: Answer) -> tuple[asyncio.Server, str]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"


def saying(*answers: bytes) -> Answer:
    """A connection that answers one request after the other, then closes."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        writer.close()

    return serve_one


async def test_sends_and_reads(client: httpx2.AsyncClient) -> None:
    heard = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.readuntil(b'{"a":1}'))
        body = gzip.compress(b"hello")
        writer.write(b"HTTP/1.1 201 Made\r\nx-y: z\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body))
        writer.write(body)
        writer.close()

    server, url = await serve(answer)
    async with server:
        response = await client.post(url, json={"a": 1}, headers={"x-a": "b"})
    assert (response.status_code, response.headers["x-y"], response.text) == (201, "z", "hello")
    assert heard.startswith(b"POST /x HTTP/1.1\r\n")
    assert b"x-a: b" in heard.lower()


async def test_the_reader_of_the_body_is_handed_out(client: httpx2.AsyncClient) -> None:
    server, url = await serve(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"))
    async with server, client.stream("GET", url) as response:
        assert await response.extensions[CONTENT].read() == b"hi"


async def test_refused_and_unresolvable_were_not_sent(client: httpx2.AsyncClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/", "http://nobody.invalid/", "ftp://127.0.0.1/", "nothing"):
        with pytest.raises(httpx2.ConnectError):
            await client.get(url)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi"])
async def test_a_cut_answer_may_have_been_executed(client: httpx2.AsyncClient, answer: bytes) -> None:
    server, url = await serve(saying(answer))
    async with server:
        with pytest.raises(httpx2.ReadError):
            await client.post(url, content=b"")


async def test_silence_is_a_read_timeout(client: httpx2.AsyncClient) -> None:
    left = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        left.set()

    server, url = await serve(answer)
    async with server:
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(url, timeout=0.05)
        async with asyncio.timeout(5):
            await left.wait()


async def test_a_read_body_gives_its_connection_back_and_an_unread_one_does_not(client: httpx2.AsyncClient) -> None:
    connections = 0
    whole = saying(*[b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"] * 2)
    endless = saying(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\nhi", b"")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await (whole if connections == 1 else endless)(reader, writer)

    server, url = await serve(answer)
    async with server:
        for _ in range(2):
            await client.get(url)
        assert connections == 1
        async with client.stream("GET", url):
            pass
        async with client.stream("GET", url):
            pass
        assert connections == 3


def test_idle_connections_are_dropped_before_servers_drop_them() -> None:
    # Node and uvicorn wait five seconds.
    assert KEEP_IDLE_SECONDS < 5
