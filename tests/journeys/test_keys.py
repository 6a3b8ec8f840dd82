"""A provider key's whole life, looked for everywhere afterwards; its audit; and what happens without audit or vault."""

import base64
import binascii
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import aiohttp
import grpc.aio
import pytest

from agentspace.v1 import key_service_pb2
from agentspace.v1.key_service_pb2_grpc import KeyServiceStub
from tests.agentspace.command import finish, start
from tests.fixtures.script import Refusal, Script
from tests.fixtures.stack import Frame, NotReadyError, Stack, running_stack
from tests.fixtures.upstream import KEY, Upstream
from tests.journeys.conftest import House
from tests.journeys.doors import DOORS, ENDS, door, hear, ready, refused

# Long, and with bytes that URLs and base64 spell differently.
CANARY = "sk-ant-canary/+?&=~%Zq9-" + "Wm4xR7tB" * 4
SECOND = "sk-ant-second/+?&=~%Pk3-" + "Lh8vN2cD" * 4
ACTIONS = ("key.put", "key.use", "key.read", "key.test", "key.delete")


def spellings(secret: str) -> dict[str, bytes]:
    """The secret as it may be written. Of base64 each alignment, without what depends on the neighbours."""
    raw = secret.encode()
    found = {
        "clear": raw,
        "reversed": raw[::-1],
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "url": quote(secret, safe="").encode(),
        "path": quote(secret).encode(),
        "form": quote_plus(secret).encode(),
        "utf-16": secret.encode("utf-16-le"),
        "html": secret.replace("&", "&amp;").encode(),
        "json": secret.replace("/", "\\/").encode(),
        "half": raw[: len(raw) // 2],
        "other half": raw[len(raw) // 2 :],
    }
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + raw)[4:-4]
        found[f"base64 {shift}"] = whole
        found[f"base64url {shift}"] = whole.replace(b"+", b"-").replace(b"/", b"_")
    return found


def assert_nowhere(secret: str, places: dict[str, bytes]) -> None:
    """The secret is in none of the places."""
    for place, data in places.items():
        for spelling, needle in spellings(secret).items():
            assert needle not in data, f"{spelling} in {place}"


def test_the_search_finds_what_it_looks_for() -> None:
    raw = CANARY.encode()
    for written in (raw, base64.b64encode(b"ab" + raw + b"!"), base64.urlsafe_b64encode(raw), binascii.hexlify(raw)):
        with pytest.raises(AssertionError):
            assert_nowhere(CANARY, {"there": b"..." + written + b"..."})
    assert_nowhere(CANARY, {"masked": b"..." + raw[-4:], "other": SECOND.encode()})


def home_files(stack: Stack) -> dict[str, bytes]:
    """Every file under the home and beside it, the logs too."""
    return {
        str(path): path.read_bytes()
        for path in sorted(stack.home.parent.rglob("*"))
        if path.is_file() and not path.is_socket()
    }


async def get(stack: Stack, path: str, token: str = "") -> tuple[int, Frame]:
    """A JSON answer over HTTP."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{stack.url}{path}") as answer:
        body: Frame = await answer.json()
        return answer.status, body


async def metrics(stack: Stack) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{stack.url}/metrics") as answer:
        return await answer.text()


class Talker:
    """Asks over the WebSocket as the operator, or as nobody, and remembers every frame."""

    def __init__(self, stack: Stack, token: str = "") -> None:
        self.stack = stack
        self.token = token
        self.heard: list[str] = []

    async def ask(self, type_: str, **fields: Any) -> Frame:
        async with self.stack.talk(token=self.token or None) as talk:
            assert (await talk.hear())["type"] == "hello"
            await talk.say(type_, **fields)
            frame = (await talk.hear_until(*ENDS))[-1] if type_ == "chat.send" else await talk.hear()
        self.heard.append(repr(frame))
        return frame

    async def audit(self) -> list[tuple[str, str, str, str]]:
        """All audit rows, oldest first."""
        frame = await self.ask("audit.list", pageSize=1000)
        rows = [(row["principal"], row["action"], row["subject"], row["outcome"]) for row in frame["events"]]
        return rows[::-1]


async def read_over_grpc(stack: Stack, *, operator: bool = True) -> str:
    async with stack.channel() as channel:
        request = key_service_pb2.ReadKeyRequest(provider="anthropic")
        answer = await KeyServiceStub(channel).ReadKey(request, metadata=stack.operator if operator else None)
        return str(answer.key)


@asynccontextmanager
async def keyless_house() -> AsyncIterator[House]:
    """Nothing in the environment: the provider's key comes from the vault or not at all."""
    async with Upstream(CANARY).serve() as upstream, running_stack(upstream.url, ANTHROPIC_API_KEY="") as stack:
        yield House(upstream, stack)


@pytest.mark.requirement("keys.sealed")
@pytest.mark.requirement("keys.audited")
async def test_a_keys_life_leaves_rows_and_no_trace() -> None:
    async with keyless_house() as house:
        stack, upstream = house.stack, house.upstream
        operator = Talker(stack, stack.token)
        assert (await operator.ask("chat.send", content="too early"))["code"] == "PROVIDER_KEY_MISSING"
        assert not upstream.chats
        expected = []

        def row(action: str, principal: str = "operator", outcome: str = "ok") -> None:
            expected.append((principal, action, "anthropic", outcome))

        stored = await operator.ask("key.put", provider="anthropic", key=CANARY)
        row("key.put")
        assert (stored["key"]["provider"], stored["key"]["masked"]) == ("anthropic", f"…{CANARY[-4:]}")
        await ready(stack)
        # Used by a turn of the local principal, over both doors.
        for name in DOORS:
            async with door(name, stack).open("chat.send", content=f"over {name}") as stream:
                assert (await hear(stream, *ENDS))[-1]["type"] == "chat.stream.end"
            row("key.use", "local")
            assert CANARY in upstream.chats[-1].headers["authorization"]
        assert await get(stack, "/keys/anthropic", stack.token) == (200, {"provider": "anthropic", "key": CANARY})
        row("key.read")
        assert await read_over_grpc(stack) == CANARY
        row("key.read")
        assert (await operator.ask("key.test", provider="anthropic"))["accepted"]
        row("key.test")
        # A provider that repeats the key in its refusals.
        for status, kind in ((400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error")):
            echo = Refusal(status, kind, f"the key {CANARY} or {CANARY[:-8]}... is odd; so is Bearer {CANARY}")
            upstream.play(Script(refusal=echo))
            assert (await operator.ask("chat.send", content=f"echo {status}"))["code"].startswith("UPSTREAM_")
            row("key.use")
        listed = await operator.ask("key.list")
        expected.append(("operator", "key.list", "", "ok"))
        assert [each["masked"] for each in listed["keys"]] == [f"…{CANARY[-4:]}"]
        # The second way in: from stdin, by the command.
        runtime = {"pid": stack.gateway.pid, "port": stack.port, "grpcPort": stack.grpc_port, "startedAt": ""}
        (stack.home / "runtime.json").write_text(json.dumps(runtime), encoding="utf-8")
        command = await start("keys", "set", "anthropic", "--json", AGENTSPACE_HOME=str(stack.home))
        code, out, err = await finish(command, f"{SECOND}\n".encode())
        assert code == 0, (out, err)
        row("key.put")
        upstream.key = "another"
        failed = await operator.ask("chat.send", content="refused upstream")
        assert failed["code"] == "UPSTREAM_AUTH"
        row("key.use")
        assert not (await operator.ask("key.test", provider="anthropic"))["accepted"]
        row("key.test")
        # Keys in the wrong place: named nowhere.
        errors = [
            await operator.ask("key.put", provider=SECOND, key="x"),
            await operator.ask("key.put", provider="anthropic", key=f"{SECOND}\n{CANARY}"),
            await operator.ask("key.test", provider=CANARY),
            await operator.ask("key.put", provider="anthropic", key=7),
            await operator.ask("key.put", provider="anthropic", kez=CANARY),
            await operator.ask("key.give", key=SECOND),
            (await get(stack, f"/keys/{quote(CANARY, safe='')}", stack.token))[1],
            (await get(stack, "/keys/anthropic", CANARY))[1],
        ]
        assert all(error["code"] for error in errors), errors
        rows = await operator.audit()
        assert rows[: len(expected)] == expected
        assert [row[1:] for row in rows[len(expected) :]] == [
            ("key.put", "unknown", "PROVIDER_NOT_FOUND"),
            ("key.put", "anthropic", "INVALID_MESSAGE"),
            ("key.test", "unknown", "PROVIDER_NOT_FOUND"),
            ("key.read", "unknown", "PROVIDER_NOT_FOUND"),
        ]
        with closing(sqlite3.connect(stack.home / "agentspace.db")) as database:
            dump = "\n".join(database.iterdump()).encode()
        running = {
            "frames": "\n".join([*operator.heard, *map(repr, errors), out, err]).encode(),
            "metrics": (await metrics(stack)).encode(),
            "dump": dump,
            "argv": b"".join(
                Path(f"/proc/{pid}/{name}").read_bytes()
                for pid in (stack.gateway.pid, stack.bridge.pid)
                for name in ("cmdline", "environ")
                if Path("/proc/self").exists()
            ),
        }
        for secret in (CANARY, SECOND):
            assert_nowhere(secret, {**running, **home_files(stack)})
        await operator.ask("key.delete", provider="anthropic")
        assert (await get(stack, "/keys/anthropic", stack.token))[0] == 404
        assert (await operator.audit())[-2:] == [
            ("operator", "key.delete", "anthropic", "ok"),
            ("operator", "key.read", "anthropic", "PROVIDER_KEY_MISSING"),
        ]
        await stack.stop()
        # With the last log lines, and the database put away.
        for secret in (CANARY, SECOND):
            assert_nowhere(secret, home_files(stack))
        modes = {
            path.name: path.stat().st_mode & 0o777
            for path in (stack.home, stack.home / "master.key", stack.home / "token")
        }
        assert modes == {"home": 0o700, "master.key": 0o600, "token": 0o600}


@pytest.mark.requirement("keys.operator-only")
@pytest.mark.requirement("keys.audited")
async def test_who_has_no_token_has_no_keys() -> None:
    async with Upstream().serve() as upstream, running_stack(upstream.url) as stack:
        operator, local = Talker(stack, stack.token), Talker(stack)
        await operator.ask("key.put", provider="anthropic", key=CANARY)
        frames = [
            await local.ask("key.put", provider="anthropic", key="x"),
            await local.ask("key.list"),
            await local.ask("key.test", provider="anthropic"),
            await local.ask("key.delete", provider="anthropic"),
        ]
        with pytest.raises(grpc.aio.AioRpcError) as denied:
            await read_over_grpc(stack, operator=False)
        frames.append(refused(denied.value))
        assert [frame["code"] for frame in frames] == ["MISSING_SCOPE"] * 5
        assert (await local.ask("audit.list"))["code"] == "MISSING_SCOPE"
        assert (await get(stack, "/keys/anthropic"))[0] == 401
        assert (await operator.audit())[1:] == [
            ("local", "key.denied", action, "MISSING_SCOPE")
            for action in ("key.put", "key.list", "key.test", "key.delete", "key.read")
        ]
        assert (await get(stack, "/keys/anthropic", stack.token))[1]["key"] == CANARY


@contextmanager
def audit_refused(stack: Stack) -> Iterator[None]:
    """Another process made the audit table refuse rows."""
    with closing(sqlite3.connect(stack.home / "agentspace.db", isolation_level=None)) as other:
        other.execute("CREATE TRIGGER deaf BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'deaf'); END")
        yield
        other.execute("DROP TRIGGER deaf")


def counted(stack: Stack) -> list[int]:
    """How many rows the tables hold that a turn or a key would leave."""
    tables = ("sessions", "messages", "turns", "usage_records", "audit_log", "provider_keys")
    with closing(sqlite3.connect(stack.home / "agentspace.db")) as database:
        return [database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]


@pytest.mark.requirement("keys.audited")
async def test_without_audit_no_key() -> None:
    async with keyless_house() as house:
        stack = house.stack
        operator = Talker(stack, stack.token)
        await operator.ask("key.put", provider="anthropic", key=CANARY)
        async with door("websocket", stack).open("chat.send", content="before") as stream:
            session = (await hear(stream, *ENDS))[0]["sessionId"]
        calls, before = len(house.upstream.calls), counted(stack)
        with audit_refused(stack):
            status, body = await get(stack, "/keys/anthropic", stack.token)
            assert (status, body["code"]) == (503, "AUDIT_UNAVAILABLE")
            with pytest.raises(grpc.aio.AioRpcError) as denied:
                await read_over_grpc(stack)
            assert refused(denied.value)["code"] == "AUDIT_UNAVAILABLE"
            for type_, fields in (
                ("key.put", {"provider": "anthropic", "key": SECOND}),
                ("key.list", {}),
                ("key.test", {"provider": "anthropic"}),
                ("key.delete", {"provider": "anthropic"}),
            ):
                assert (await operator.ask(type_, **fields))["code"] == "AUDIT_UNAVAILABLE", type_
            # A denial that cannot be written down is no way around it.
            assert (await Talker(stack).ask("key.list"))["code"] == "AUDIT_UNAVAILABLE"
            for name in DOORS:
                for fields in ({}, {"sessionId": session}):
                    async with door(name, stack).open("chat.send", content="unheard", **fields) as stream:
                        frame = await stream.next()
                    assert (frame["type"], frame["code"]) == ("error", "AUDIT_UNAVAILABLE")
            # What needs no key goes on.
            async with door("grpc", stack).open("chat.send", content="free", model="scripted/echo") as stream:
                assert (await hear(stream, *ENDS))[-1]["type"] == "chat.stream.end"
        after = counted(stack)
        # The free turn: a session, two messages, a turn, a row of the ledger; not one audit row or key more.
        assert [late - early for early, late in zip(before, after, strict=True)] == [1, 2, 1, 1, 0, 0]
        assert len(house.upstream.calls) == calls
        assert (await get(stack, "/keys/anthropic", stack.token))[1] == {"provider": "anthropic", "key": CANARY}
        assert (await operator.ask("chat.send", content="after", sessionId=session))["type"] == "chat.stream.end"
        assert [words for _, words in house.calls("after")[0].said()] == ["before", "You said: before", "after"]
        assert_nowhere(CANARY, home_files(stack))


def other_key(file: Path) -> None:
    file.write_bytes(base64.b64encode(bytes(range(32))) + b"\n")


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:20])


def noise(file: Path) -> None:
    file.write_bytes(b"\xff\x00\xfe" * 15)


def opened(file: Path) -> None:
    file.chmod(0o644)


def lost(file: Path) -> None:
    file.unlink()


@pytest.mark.requirement("keys.sealed")
@pytest.mark.requirement("ready.truthful")
async def test_another_master_key_opens_nothing_and_nothing_takes_its_place() -> None:
    # A key in the environment is no way out: what was stored was meant to be used.
    async with Upstream(CANARY).serve() as upstream, running_stack(upstream.url) as stack:
        assert stack.environment["ANTHROPIC_API_KEY"] == KEY
        operator = Talker(stack, stack.token)
        await operator.ask("key.put", provider="anthropic", key=CANARY)
        await ready(stack)
        file = stack.home / "master.key"
        good = file.read_bytes()
        for damage in (other_key, cut_short, noise, opened, lost):
            damage(file)
            before = counted(stack)[:4]
            status, body = await get(stack, "/keys/anthropic", stack.token)
            assert (status, body["code"]) == (503, "VAULT_UNAVAILABLE"), damage
            assert (await operator.ask("key.test", provider="anthropic"))["code"] == "VAULT_UNAVAILABLE"
            for name in DOORS:
                async with door(name, stack).open("chat.send", content="sealed") as stream:
                    frame = await stream.next()
                assert (frame["type"], frame["code"]) == ("error", "VAULT_UNAVAILABLE"), damage
                assert str(stack.home) not in frame["message"]
            status, body = await get(stack, "/ready")
            parts = [(part["name"], bool(part["detail"])) for part in body["parts"] if not part["ready"]]
            assert (status, parts) == (503, [("vault", True)]), damage
            assert counted(stack)[:4] == before
            assert not upstream.calls
            assert file.exists() == (damage is not lost), "reading makes no new key"
            file.unlink(missing_ok=True)
            file.write_bytes(good)
            file.chmod(0o600)
            await ready(stack)
        # Nor does the good file stand in for a wrong value that was configured, from the start on.
        given = stack.environment
        value = base64.b64encode(bytes(32)).decode()
        stack.environment = {**given, "AGENTSPACE_MASTER_KEY": value}
        await stack.restart_gateway()
        async with door("grpc", stack).open("chat.send", content="sealed") as stream:
            frame = await stream.next()
        assert frame["code"] == "VAULT_UNAVAILABLE"
        assert value not in repr(frame)
        stack.environment = {**given, "AGENTSPACE_MASTER_KEY": "not base64"}
        with pytest.raises(NotReadyError, match="AGENTSPACE_MASTER_KEY is not 32 bytes in base64"):
            await stack.restart_gateway()
        assert not upstream.calls
        stack.environment = given
        await stack.restart_gateway()
        await ready(stack)
        assert (await operator.ask("chat.send", content="open again"))["type"] == "chat.stream.end"
        assert CANARY in upstream.chats[-1].headers["authorization"]
        outcomes = {outcome for _, action, _, outcome in await operator.audit() if action in ("key.read", "key.test")}
        assert outcomes == {"VAULT_UNAVAILABLE"}
