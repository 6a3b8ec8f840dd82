"""One exchange over a real socket: what counts as an answer, when it is over, and when the connection lives on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers import connection as module
from gateway.providers.connection import Connection, CutOffError, NotSentError
from tests.gateway.providers.answers import Answer, Kept, saying, serving

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HI = b"HTTP/1.1 200 OK\r\nX-Y: z\r\ncontent-length: 2\r\n\r\nhi"


@asynccontextmanager
async def connected(answer: Answer) -> AsyncIterator[Connection]:
    """A connection to a server that handles it so."""
    async with serving(answer) as server:
        _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", server.port)
        try:
            yield made
        finally:
            made.abort()


async def test_an_answer_is_handed_on_and_the_connection_used_again() -> None:
    async with connected(saying(HI, HI)) as connection:
        for _ in range(2):
            kept = Kept()
            await connection.ask(GET, kept)
            assert (kept.status, kept.headers["x-y"], kept.text) == (200, "z", b"hi")
            assert connection.usable


@pytest.mark.parametrize(
    "whole",
    [
        HI,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-trailer: 1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nx-a: b\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + HI,
    ],
)
async def test_however_it_is_cut(whole: bytes) -> None:
    async def bytewise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for number in range(len(whole)):
            writer.write(whole[number : number + 1])
            await asyncio.sleep(0)

    for answer in (saying(whole), bytewise):
        kept = Kept()
        async with connected(answer) as connection:
            await connection.ask(GET, kept)
            assert connection.usable
        assert (kept.status, kept.text, "link" in kept.headers) == (200, b"hi", False)


async def test_what_one_read_brings_is_one_piece() -> None:
    body = b"".join(b"3\r\none\r\n" for _ in range(50))
    whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
    async with connected(saying(whole)) as connection:
        kept = Kept()
        await connection.ask(GET, kept)
    assert kept.text == b"one" * 50
    assert len(kept.pieces) < 5


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nwithout a length, so that nobody knows whether it is whole",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: tea\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
async def test_what_ends_early_or_is_no_answer(answer: bytes) -> None:
    async with connected(saying(answer)) as connection:
        with pytest.raises(CutOffError):
            await connection.ask(GET, Kept())
        assert not connection.usable
        with pytest.raises(NotSentError):
            await connection.ask(GET, Kept())


@pytest.mark.parametrize(
    "answer",
    [
        HI.replace(b"X-Y: z", b"connection: close"),
        HI.replace(b"HTTP/1.1", b"HTTP/1.0"),
        HI + b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nunasked",
        HI + b"\0nonsense",
    ],
)
async def test_a_connection_that_will_not_do_again_is_closed(answer: bytes) -> None:
    async with connected(saying(answer)) as connection:
        kept = Kept()
        await connection.ask(GET, kept)
        assert (kept.text, connection.usable) == (b"hi", False)


async def test_what_came_before_nonsense_in_the_same_read_counts() -> None:
    async with connected(
        saying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n")
    ) as connection:
        kept = Kept()
        with pytest.raises(CutOffError):
            await connection.ask(GET, kept)
        assert kept.text == b"half"


@pytest.mark.parametrize(
    ("after", "apart"), [(b"nonsense\r\n", False), (b"nonsense\r\n", True), (b"2;" + b"ext=ension;" * 10_000, True)]
)
async def test_nonsense_after_enough_is_nobodys_business(
    after: bytes, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BODY_END_SECONDS", 10)
    kept = Kept(enough=2)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n"
        if apart:
            writer.write(whole)
            await kept.heard.wait()
            writer.write(after)
        else:
            writer.write(whole + after)
        with suppress(ConnectionError):
            assert await reader.read() == b""

    async with asyncio.timeout(5), connected(answer) as connection:
        await connection.ask(GET, kept)
        assert (kept.text, connection.usable) == (b"hi", False)


async def test_a_body_takes_no_longer_than_the_receiver_allows() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HI[:-1])
        # It ends when the reader gives up.
        assert await reader.read() == b""

    kept = Kept(seconds=0.05)
    async with asyncio.timeout(5), connected(answer) as connection:
        with pytest.raises(CutOffError):
            await connection.ask(GET, kept)
        assert (kept.text, connection.usable) == (b"h", False)


async def test_the_time_of_one_body_says_nothing_of_the_next() -> None:
    allowed, over, done = 0.05, asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HI)
        await reader.readuntil(b"\r\n\r\n")
        await over.wait()
        writer.write(HI)
        await done.wait()

    async with asyncio.timeout(5), connected(answer) as connection:
        hurried, patient = Kept(seconds=allowed), Kept()
        await connection.ask(GET, hurried)
        assert connection.usable
        asyncio.get_running_loop().call_later(2 * allowed, over.set)
        await connection.ask(GET, patient)
        assert (hurried.text, patient.text, connection.usable) == (b"hi", b"hi", True)
        done.set()


async def test_what_nobody_asked_for_closes_an_idle_connection() -> None:
    go = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HI)
        await go.wait()
        writer.write(HI)
        assert await reader.read() == b""

    async with connected(answer) as connection:
        await connection.ask(GET, Kept())
        assert connection.usable
        assert connection.silent
        go.set()
        while connection.usable:
            await asyncio.sleep(0)
        assert not connection.silent


@pytest.mark.parametrize(
    "endless",
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-more: header\r\n"),
        (b"HTTP/1.1 200 OK\r\nx-long: ", b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;", b"ext=ension;"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", b"x-trailer: more\r\n"),
    ],
)
async def test_what_is_no_body_is_bounded(endless: tuple[bytes, bytes]) -> None:
    first, more = endless
    sent = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        while True:
            writer.write(more * 100)
            await writer.drain()
            sent += len(more) * 100

    async with connected(answer) as connection:
        with pytest.raises(CutOffError):
            await connection.ask(GET, Kept())
    assert sent < 100 * module.LONGEST_HEAD_BYTES


async def test_enough_ends_the_exchange_soon_and_a_whole_body_saves_the_connection() -> None:
    more = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HI)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi")
        await more.wait()
        writer.write(b"!")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi")
        assert await reader.read() == b""

    async with connected(answer) as connection:
        await connection.ask(GET, Kept(enough=1))
        assert connection.usable
        kept = Kept(enough=2)
        exchange = asyncio.create_task(connection.ask(GET, kept))
        await kept.heard.wait()
        more.set()
        await exchange
        assert connection.usable
        await connection.ask(GET, Kept(enough=2))
        assert not connection.usable


class Angry(Kept):
    """Raises at the head or at the body."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        if self._where == "head":
            raise LookupError

    def body(self, data: bytes) -> bool:
        self.pieces.append(data)
        raise LookupError


@pytest.mark.parametrize("where", ["head", "body"])
async def test_what_the_receiver_raises_ends_the_exchange(where: str) -> None:
    async with connected(saying(HI[:-1])) as connection:
        with pytest.raises(LookupError):
            await connection.ask(GET, Angry(where))
        assert not connection.usable


async def test_nothing_is_handed_on_after_the_end() -> None:
    """One wake-up of the event loop may bring several reads, before whoever asked is told of the end."""
    for first, angry in ((HI, False), (HI[:-1], True)):
        connection = Connection()
        connection.connection_made(_Deaf())
        kept = Angry("body") if angry else Kept()
        exchange = asyncio.ensure_future(connection.ask(GET, kept))
        await asyncio.sleep(0)
        connection.data_received(first)
        heard = len(kept.pieces)
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmore")
        assert len(kept.pieces) == heard
        if angry:
            with pytest.raises(LookupError):
                await exchange
        else:
            await exchange
        assert not connection.usable


async def test_cancelling_closes_the_connection() -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        assert await reader.read() == b""
        closed.set()

    async with connected(answer) as connection:
        exchange = asyncio.create_task(connection.ask(GET, Kept()))
        await asked.wait()
        exchange.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange
        await closed.wait()


def feed(parts: list[bytes], then: Callable[[Connection], None] = lambda _: None) -> tuple[Kept, str]:
    """What comes of an answer in these parts, without a socket."""

    async def run() -> tuple[Kept, str]:
        connection, kept = Connection(), Kept()
        connection.connection_made(_Deaf())
        exchange = asyncio.ensure_future(connection.ask(GET, kept))
        await asyncio.sleep(0)
        for part in parts:
            if not exchange.done():
                connection.data_received(part)
        connection.connection_lost(None)
        try:
            await exchange
        except CutOffError:
            return kept, "cut off"
        return kept, "whole"

    return asyncio.run(run())


class _Deaf(asyncio.Transport):
    """Takes everything."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def abort(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_do_harm(noise: bytes, cut: int) -> None:
    for start in (b"", HI[:20], HI[:-1], b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"):
        whole = start + noise
        kept, outcome = feed([part for part in (whole[:cut], whole[cut:]) if part])
        if start == HI[:-1]:
            # One byte makes it whole, whatever it is and whatever follows.
            assert (outcome, kept.text) == (("whole", b"h" + noise[:1]) if noise else ("cut off", b"h"))
        elif outcome == "whole":
            assert kept.status >= 200
