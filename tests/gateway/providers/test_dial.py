"""Opening connections: when nothing was sent, TLS with a certificate that counts, and the environment's proxies."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from yarl import URL

from gateway.providers.connection import NotSentError
from gateway.providers.dial import Dialer, proxy_for
from gateway.providers.transport import Transport
from tests.gateway.providers.answers import Answer, Kept, saying, serving

HI = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def ask(url: str) -> bytes:
    """The body of GET /x."""
    transport, kept = Transport(url, "test"), Kept()
    try:
        await transport.exchange("GET", "/x", "key", None, kept)
    finally:
        await transport.close()
    return kept.text


@pytest.mark.parametrize("url", ["http://nobody.invalid", "https://nobody.invalid", "http://127.0.0.1:{free}"])
async def test_nobody_there(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    with pytest.raises(NotSentError):
        await ask(url.format(free=free))


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "nothing", "http:///path", ""])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(NotSentError):
        Dialer(URL(url))


def noting(name: str, heard: list[tuple[str, bytes]]) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((name, await reader.readuntil(b"\r\n\r\n")))
        writer.write(HI)

    return answer


@pytest.mark.parametrize(
    ("url", "environment", "asked"),
    [
        ("http://example.test/a", {"http_proxy": "{proxy}"}, "proxy"),
        ("http://example.test/a", {"http_proxy": "http://user:w%40rd@{proxy_host}"}, "proxy"),
        ("http://example.test/a", {"http_proxy": "{proxy_host}"}, "proxy"),
        ("http://example.test/a", {"http_proxy": "user:w%40rd@{proxy_host}"}, "proxy"),
        ("http://example.test/a", {"http_proxy": "socks5://{proxy_host}"}, ""),
        ("http://example.test/a", {"https_proxy": "{proxy}"}, ""),
        ("http://example.test/a", {"http_proxy": "{proxy}", "no_proxy": "example.test"}, ""),
        ("{server}", {"http_proxy": "{proxy}"}, "server"),
    ],
)
async def test_proxies_are_those_of_the_environment_but_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, url: str, environment: dict[str, str], asked: str
) -> None:
    heard: list[tuple[str, bytes]] = []
    async with serving(noting("server", heard)) as server, serving(noting("proxy", heard)) as proxy:
        places = {"server": server.url, "proxy": proxy.url, "proxy_host": f"127.0.0.1:{proxy.port}"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value.format(**places))
        if asked:
            assert await ask(url.format(**places)) == b"hi"
        else:
            with pytest.raises(NotSentError):
                await ask(url.format(**places))
    assert [name for name, _ in heard] == ([asked] if asked else [])
    if asked == "proxy":
        assert heard[0][1].startswith(b"GET http://example.test/a/x HTTP/1.1\r\nHost: example.test\r\n")
        credentials = b"Proxy-Authorization: Basic dXNlcjp3QHJk\r\n"  # user:w@rd
        assert (credentials in heard[0][1]) == ("user" in environment["http_proxy"])


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True), ("127.9.8.7", True), ("127.1", True), ("2130706433", True), ("127.0.0.1.", True),
        ("[::1]", True), ("[0:0::0:1]", True), ("[::ffff:127.0.0.2]", True), ("[::ffff:7f00:1]", True),
        ("localhost", True), ("LocalHost", True), ("localhost.", True), ("a.b.localhost", True), ("a.localhost.", True),
        ("128.0.0.1", False), ("[::2]", False), ("[::ffff:10.0.0.1]", False), ("notlocalhost", False),
        ("localhost.example.test", False), ("127.0.0.1.example.test", False),
    ],
)  # fmt: skip
def test_this_machine_is_never_asked_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, scheme: str, host: str, here: bool
) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", "proxy.test:3128")
    assert proxy_for(URL(f"{scheme}://{host}:1/a")) == (None if here else URL("http://proxy.test:3128"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 and example.test, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("example.test")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@asynccontextmanager
async def secured(certificate: Path, heard: list[tuple[str, bytes]]) -> AsyncIterator[int]:
    """The port of a server that speaks TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    answer = noting("server", heard)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer)
        await reader.read()
        writer.close()
        done.set()

    done = asyncio.Event()
    async with asyncio.timeout(20), await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]
        if heard:
            await done.wait()


async def test_tls_with_a_trusted_certificate(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    heard: list[tuple[str, bytes]] = []
    async with secured(certificate, heard) as port:
        assert await ask(f"https://127.0.0.1:{port}") == b"hi"
    assert heard[0][1].startswith(b"GET /x HTTP/1.1\r\n")


async def test_nothing_is_sent_to_somebody_else(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, bytes]] = []
    async with secured(certificate, heard) as port:
        with pytest.raises(NotSentError):
            await ask(f"https://127.0.0.1:{port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with pytest.raises(NotSentError):
            await ask(f"https://localhost:{port}")
    assert heard == []


async def test_a_silent_resolver_is_asked_once_and_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    silent, asked = threading.Event(), []

    def look_up(host: str, port: int, **how: int) -> list[tuple[object, ...]]:
        if how.get("flags"):
            raise socket.gaierror
        asked.append(threading.current_thread())
        silent.wait(20)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    dialer = Dialer(URL("http://example.test"))
    async with asyncio.timeout(10):
        dials = [asyncio.create_task(dialer.dial()) for _ in range(5)]
        while not asked:
            await asyncio.sleep(0)
        dials[0].cancel()
        silent.set()
        outcomes = await asyncio.gather(*dials, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError, *[NotSentError] * 4]
    # A process does not wait for such a thread.
    assert [thread.daemon for thread in asked] == [True]


async def test_a_cancelled_dial_leaves_nothing_open(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever turn of the event loop it is cancelled, also that in which the handshake ends."""

    async def found(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", server.sockets[0].getsockname())]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.add(writer)
        with suppress(OSError):
            await reader.read()
        writer.close()
        opened.remove(writer)

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(Dialer, "_addresses", found)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    opened: set[asyncio.StreamWriter] = set()
    outcomes = set()
    async with asyncio.timeout(20), await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context) as server:
        dialer = Dialer(URL("https://example.test"))
        await dialer._context()
        for number in range(200):
            dialing = asyncio.create_task(dialer.dial())
            for _ in range(number % 25):
                await asyncio.sleep(0)
            dialing.cancel()
            try:
                (await dialing).abort()
                outcomes.add("made")
            except asyncio.CancelledError:
                outcomes.add("cancelled")
        while opened:
            await asyncio.sleep(0)
    assert outcomes == {"made", "cancelled"}


async def test_a_connection_that_ends_before_tls_is_none() -> None:
    async with serving(saying()) as server, asyncio.timeout(5):
        for _ in range(20):
            with pytest.raises(NotSentError):
                await ask(f"https://127.0.0.1:{server.port}")


async def test_nothing_is_written_after_a_goodbye(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS says goodbye before the connection ends: what is written in between never leaves."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    heard: list[tuple[str, bytes]] = []
    answer = noting("server", heard)
    go, ended = asyncio.Event(), asyncio.Queue[None]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer)
        await go.wait()
        writer.close()
        await writer.wait_closed()
        ended.put_nowait(None)

    async with asyncio.timeout(20), await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context) as server:
        transport = Transport(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", "test")
        await transport.exchange("GET", "/", "key", None, Kept())
        (connection,) = transport._idle
        lost = asyncio.Event()
        monkeypatch.setattr(connection, "connection_lost", lambda _: lost.set())
        go.set()
        while connection.usable:
            await asyncio.sleep(0)
        assert not lost.is_set()
        with pytest.raises(NotSentError):
            await connection.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Kept())
        await transport.exchange("GET", "/", "key", None, Kept())
        await transport.close()
        await lost.wait()
        for _ in range(2):
            await ended.get()
    assert len(heard) == 2


async def test_tls_through_a_proxy(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    heard: list[tuple[str, bytes]] = []
    async with secured(certificate, heard) as port:

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(("proxy", await reader.readuntil(b"\r\n\r\n")))
            beyond, further = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

            async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    target.write(data)
                target.close()

            await asyncio.gather(pass_on(reader, further), pass_on(beyond, writer))

        async with serving(tunnel) as proxy:
            monkeypatch.setenv("https_proxy", f"http://user:word@127.0.0.1:{proxy.port}")
            assert await ask("https://example.test/a") == b"hi"
    assert heard[0][0] == "proxy"
    assert heard[0][1].startswith(b"CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in heard[0][1]
    assert b"key" not in heard[0][1]
    assert heard[1][1].startswith(b"GET /a/x HTTP/1.1\r\nHost: example.test\r\n")
    assert b"roxy" not in heard[1][1]


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", b"", b"nonsense\r\n\r\n", b"HTTP/1.1 " + b"2" * 20_000]
)
async def test_a_proxy_that_refuses_passed_nothing_on(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with serving(refuse) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(NotSentError):
            await ask("https://example.test")
