"""A receiver that keeps what it gets, and servers that say what they are told to, for the tests of this folder."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Kept:
    """Implements Receiver. `enough`: how many bytes of body it wants at most; `seconds`: how long it waits for them."""

    def __init__(self, enough: int = 1 << 30, seconds: float | None = None) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.pieces: list[bytes] = []
        self.heard = asyncio.Event()
        self._enough = enough
        self._seconds = seconds

    def head(self, status: int, headers: Mapping[str, str]) -> float | None:
        self.status, self.headers = status, headers
        return self._seconds

    def body(self, data: bytes) -> bool:
        self.pieces.append(data)
        self.heard.set()
        return len(self.text) >= self._enough

    @property
    def text(self) -> bytes:
        return b"".join(self.pieces)


class Server:
    """Where it listens, how many connections it had, and what was asked on each."""

    def __init__(self) -> None:
        self.port = 0
        self.heard: list[bytes] = []
        self.open = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Server]:
    """A server on loopback that handles every connection with `answer`; its end waits for all of them."""
    served = Server()
    idle = asyncio.Event()
    idle.set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.open += 1
        idle.clear()
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await answer(reader, writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        finally:
            served.open -= 1
            if not served.open:
                idle.set()

    async with asyncio.timeout(20):
        listening = await asyncio.start_server(handle, "127.0.0.1", 0)
        served.port = listening.sockets[0].getsockname()[1]
        async with listening:
            yield served
            await idle.wait()


def saying(*answers: bytes) -> Answer:
    """Answers one request after the other, then hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for said in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)

    return answer
