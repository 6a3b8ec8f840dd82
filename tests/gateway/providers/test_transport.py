"""The transport tells what was surely not sent from what may have been, and uses connections again when it can."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from gateway.providers.transport import KEEP_IDLE_SECONDS, NOT_SENT, Transport

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Made = Callable[[str], Transport]


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


async def serve(answer: Answer) -> tuple[asyncio.Server, str]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def saying(*answers: bytes) -> Answer:
    """A connection that answers one request after the other, then closes."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        writer.close()

    return serve_one


async def test_sends_and_reads(transport: Made) -> None:
    heard = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.readuntil(b'{"a":1}'))
        writer.write(
            b"HTTP/1.1 201 Made\r\nx-y: z\r\nset-cookie: a=b\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"
        )
        writer.close()

    server, url = await serve(answer)
    async with server:
        opened = transport(f"{url}/under/")
        for _ in range(2):
            heard.clear()
            response = await opened.request("POST", "/x?y=1", "key", b'{"a":1}')
            assert (response.status, response.headers["x-y"], await response.read()) == (201, "z", b"hi")
            response.close()
    assert heard.startswith(b"POST /under/x?y=1 HTTP/1.1\r\n")
    sent = bytes(heard).lower()
    for line in (b"authorization: bearer key", b"content-type: application/json", b"accept-encoding: identity"):
        assert sent.count(line + b"\r\n") == 1
    assert b"cookie" not in sent


@pytest.mark.parametrize("url", ["http://nobody.invalid", "ftp://127.0.0.1", "nothing", "http://[::1", ""])
async def test_without_a_connection_nothing_was_sent(transport: Made, url: str) -> None:
    with pytest.raises(NOT_SENT):
        await transport(url).request("POST", "/", "key", b"")


async def test_a_refused_connection_was_not_used(transport: Made) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NOT_SENT):
        await transport(f"http://127.0.0.1:{port}").request("POST", "/", "key", b"")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"nonsense\r\n\r\n"])
async def test_a_cut_answer_may_have_been_executed(transport: Made, answer: bytes) -> None:
    server, url = await serve(saying(answer))
    async with server:
        with pytest.raises(aiohttp.ClientError) as caught:
            await transport(url).request("POST", "/", "key", b"")
    assert not isinstance(caught.value, NOT_SENT)


async def test_silence_ends_after_the_time_given(transport: Made) -> None:
    left = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        left.set()

    server, url = await serve(answer)
    async with server:
        with pytest.raises(TimeoutError) as caught:
            await transport(url).request("GET", "/", "key", seconds=0.05)
        await left.wait()
    assert not isinstance(caught.value, NOT_SENT)


async def test_a_read_body_gives_its_connection_back_and_an_unread_one_does_not(transport: Made) -> None:
    connections = 0
    whole = saying(*[b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"] * 3)
    endless = saying(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\nhi", b"")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await (whole if connections == 1 else endless)(reader, writer)

    server, url = await serve(answer)
    async with server:
        opened = transport(url)
        for expected in (1, 1, 1, 2, 3):
            response = await opened.request("GET", "/", "key")
            assert await response.content.readany() == b"hi"
            response.close()
            assert connections == expected


@pytest.mark.parametrize(
    ("url", "environment", "asked"),
    [
        ("http://example.test/a", {"http_proxy": "{proxy}"}, "proxy"),
        ("http://example.test/a", {"http_proxy": "http://user:word@{proxy_host}"}, "proxy"),
        ("http://example.test/a", {"https_proxy": "{proxy}"}, ""),
        ("http://example.test/a", {"http_proxy": "{proxy}", "no_proxy": "example.test"}, ""),
        ("{server}", {"http_proxy": "{proxy}"}, "server"),
    ],
)
async def test_proxies_are_those_of_the_environment_but_for_this_machine(
    transport: Made, monkeypatch: pytest.MonkeyPatch, url: str, environment: dict[str, str], asked: str
) -> None:
    heard: list[tuple[str, bytes]] = []

    def noting(name: str) -> Answer:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append((name, await reader.readuntil(b"\r\n\r\n")))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            writer.close()

        return answer

    server, server_url = await serve(noting("server"))
    proxy, proxy_url = await serve(noting("proxy"))
    places = {"server": server_url, "proxy": proxy_url, "proxy_host": proxy_url.removeprefix("http://")}
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv(name, environment.get(name, "").format(**places))
    async with server, proxy:
        try:
            (await transport(url.format(**places)).request("GET", "/x", "key")).close()
        except NOT_SENT:
            assert not asked
    assert [name for name, _ in heard] == ([asked] if asked else [])
    if asked == "proxy":
        assert heard[0][1].startswith(b"GET http://example.test/a/x HTTP/1.1\r\n")
        assert (b"Proxy-Authorization: Basic" in heard[0][1]) == ("word" in environment["http_proxy"])


async def test_a_proxy_that_refuses_passed_nothing_on(transport: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, proxy_url = await serve(saying(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n"))
    monkeypatch.setenv("https_proxy", proxy_url)
    async with proxy:
        with pytest.raises(NOT_SENT):
            await transport("https://example.test").request("GET", "/", "key")


def test_idle_connections_are_dropped_before_servers_drop_them() -> None:
    # Node and uvicorn wait five seconds.
    assert KEEP_IDLE_SECONDS < 5
