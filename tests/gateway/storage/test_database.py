import asyncio
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError
from gateway.storage.database import Database
from gateway.storage.file import DatabaseRefusedError, prepare
from tests.gateway.storage import suite_store
from tests.gateway.storage.samples import cases, session

KILLED = """
import asyncio, itertools, pathlib, sys
from gateway.storage.database import Database
from tests.gateway.storage.samples import message, session, turn

async def main():
    store = await Database.open(pathlib.Path(sys.argv[1]))
    async def client(name):
        for number in itertools.count():
            key = f"{name}-{number}"
            def work(tx):
                tx.sessions.insert(session(key))
                tx.messages.insert(message(key, key, "x" * 2000))
                tx.turns.insert(turn(key, key))
            await store.write(work)
            print(key, flush=True)
    await asyncio.gather(*(client(name) for name in "abcdefgh"))

asyncio.run(main())
"""

FULL = """
import asyncio, pathlib, resource, sys
from gateway.domain.error import GatewayError
from gateway.storage.database import Database
from tests.gateway.storage.samples import message, session

async def main():
    store = await Database.open(pathlib.Path(sys.argv[1]))
    await store.write(lambda tx: tx.sessions.insert(session()))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512 * 1024, hard))
    kept, refused = [], 0
    for number in range(40):
        try:
            await store.write(lambda tx: tx.messages.insert(message(f"m{number}", text="x" * 100_000)))
            kept.append(f"m{number}")
        except GatewayError as error:
            assert error.reason == 26, error
            refused += 1
    assert refused and kept, (refused, kept)
    assert [m.message_id for m in await store.read(lambda tx: tx.messages.history("s1"))] == kept
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await store.check()
    await store.write(lambda tx: tx.messages.insert(message("after", text="x" * 100_000)))
    assert [m.message_id for m in await store.read(lambda tx: tx.messages.history("s1"))] == [*kept, "after"]
    await store.close()

asyncio.run(main())
"""

FAILING = """
import asyncio, pathlib, sys
from gateway.domain.error import GatewayError
from gateway.storage.database import Database
from tests.gateway.storage.samples import session

async def main():
    store = await Database.open(pathlib.Path(sys.argv[1]))
    kept, refused = set(), set()
    for number in range(40):
        try:
            await store.write(lambda tx: tx.sessions.insert(session(f"s{number}")))
            kept.add(f"s{number}")
        except GatewayError as error:
            assert error.reason == 26, error
            refused.add(f"s{number}")
    assert refused and kept, (refused, kept)
    found = await store.read(lambda tx: tx.sessions.page(after=None, limit=99, agent_id="", deleted=False)[0])
    assert {s.session_id for s in found} == kept
    await store.close()
    print(len(kept))

asyncio.run(main())
"""

LOCKED = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("case", cases(suite_store), ids=lambda case: case.__name__)
async def test_on_sqlite(case, store: Database) -> None:
    await case(store)


async def test_the_home_is_its_owners(store: Database, path: Path) -> None:
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


async def test_a_second_gateway_is_kept_out(store: Database, path: Path) -> None:
    with pytest.raises(DatabaseRefusedError, match="in use by another gateway"):
        await Database.open(path)


async def test_close_finishes_what_waits_and_lets_go(path: Path) -> None:
    store = await Database.open(path)
    works = [
        asyncio.ensure_future(store.write(lambda tx, number=number: tx.sessions.insert(session(f"s{number}"))))
        for number in range(700)
    ]
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    await asyncio.gather(*works)
    with pytest.raises(GatewayError, match="closed") as caught:
        await store.read(lambda tx: None)
    assert caught.value.reason == error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE
    # Nothing is left beside the file, and it can be opened again.
    assert {file.name for file in path.parent.iterdir()} == {"agentspace.db", "agentspace.db.lock"}
    again = await Database.open(path)
    assert (
        len(await again.read(lambda tx: tx.sessions.page(after=None, limit=999, agent_id="", deleted=False)[0])) == 700
    )
    await again.close()


async def test_a_lock_of_another_process_is_waited_for_then_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.storage.file.BUSY_SECONDS", 0.2)
    store = await Database.open(path)
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOCKED, path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert await other.stdout.readline() == b"locked\n"
    with pytest.raises(GatewayError, match="locked") as caught:
        await store.write(lambda tx: tx.sessions.insert(session()))
    assert caught.value.reason == error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE
    with pytest.raises(GatewayError, match="locked"):
        await store.check()
    assert await store.read(lambda tx: tx.sessions.get("s1")) is None
    await other.communicate(b"")
    await store.write(lambda tx: tx.sessions.insert(session()))
    await store.close()


async def test_a_full_disk_takes_nothing_and_ends_when_there_is_room(path: Path) -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", FULL, path, stderr=subprocess.PIPE)
    _, said = await child.communicate()
    assert child.returncode == 0, said.decode()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace makes the faults")
@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
async def test_what_the_disk_refused_is_not_there(path: Path, call: str) -> None:
    """A failed write or fsync is never made good by the one after it."""
    fault = f"inject={call}:error=EIO:when={'20..30' if call == 'fdatasync' else '130+31'}"
    child = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", fault),
        *(sys.executable, "-c", FAILING, path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    kept, said = await child.communicate()
    assert child.returncode == 0, said.decode()
    connection = prepare(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (int(kept),)
    connection.close()


async def test_a_kill_loses_nothing_that_was_answered(path: Path) -> None:
    for acknowledged in (1, 150):
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, path, stdout=subprocess.PIPE)
        assert child.stdout is not None
        answered = [(await child.stdout.readline()).decode().strip() for _ in range(acknowledged)]
        child.kill()
        rest, _ = await child.communicate()
        # The last line may be torn.
        answered += [line.decode() for line in rest.split(b"\n")[:-1]]

        connection = prepare(path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        store = await Database.open(path)
        for key in answered:
            found = await store.read(
                lambda tx, key=key: (tx.sessions.get(key), tx.messages.history(key), tx.turns.get(key))
            )
            assert all(found), key
        # A work is there whole or not at all.
        everyone = await store.read(lambda tx: tx.sessions.page(after=None, limit=10**6, agent_id="", deleted=False)[0])
        for each in everyone:
            assert await store.read(lambda tx, key=each.session_id: tx.turns.get(key)) is not None
        await store.close()
        for file in path.parent.iterdir():
            file.unlink()
