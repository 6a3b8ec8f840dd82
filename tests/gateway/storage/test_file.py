import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError
from gateway.storage import migrate
from gateway.storage.file import DatabaseRefusedError, close, connect, lock, prepare


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agentspace.db"


def made(path: Path) -> Path:
    prepare(path).close()
    return path


def test_makes_a_file_for_its_owner_only(path: Path) -> None:
    connection = prepare(path)
    connection.execute("CREATE TABLE more (x)")
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert files == {"agentspace.db": 0o600, "agentspace.db-wal": 0o600, "agentspace.db-shm": 0o600}
    connection.close()


def test_writes_are_safe_from_a_power_cut(path: Path) -> None:
    connection = prepare(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


def test_opens_again_what_it_made(path: Path) -> None:
    first = prepare(path)
    first.execute("INSERT INTO audit_log VALUES (1, 2, 'p', 'a', 's', 'ok')")
    first.close()
    second = prepare(path)
    assert second.execute("SELECT count(*) FROM audit_log").fetchone() == (1,)
    second.close()


def test_names_with_signs_are_names(tmp_path: Path) -> None:
    odd = tmp_path / "a?b#c %41"
    odd.mkdir()
    made(odd / "x.db")
    assert (odd / "x.db").stat().st_size > 0


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: b"not a database, but a letter" * 1000, id="foreign"),
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda data: data[:4096] + b"\xff" * 4096 + data[8192:], id="page overwritten"),
        pytest.param(lambda data: b"\0" * 100 + data[100:], id="header overwritten"),
    ],
)
def test_refuses_a_damaged_file_and_leaves_it(path: Path, spoil) -> None:
    damaged = spoil(made(path).read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(DatabaseRefusedError, match=r"damaged .*left as it is"):
        prepare(path)
    assert path.read_bytes() == damaged


def newer(path: Path) -> sqlite3.Connection:
    connection = prepare(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    return connection


def foreign(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE recipes (x)")
    return connection


def foreign_with_log(path: Path) -> sqlite3.Connection:
    connection = foreign(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("INSERT INTO recipes VALUES (1)")
    return connection


def files(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """What is there and what is in it. The index of a log is made anew by whoever is the first to read it."""
    found = {}
    for file in path.parent.iterdir():
        stats, index = file.stat(), file.name.endswith("-shm")
        found[file.name] = stats.st_mode, 0 if index else stats.st_mtime_ns, b"" if index else file.read_bytes()
    return found


@pytest.mark.parametrize("state", ["closed", "in use", "killed"])
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (newer, f"has schema 9999.*up to {migrate.HEAD}"),
        (foreign, "another program"),
        (foreign_with_log, "another program"),
    ],
)
def test_refuses_what_another_program_wrote_and_leaves_it(path: Path, make, why: str, state: str) -> None:
    connection = make(path)
    written = {file: file.read_bytes() for file in path.parent.iterdir()}
    if state != "in use":
        connection.close()
    if state == "killed":
        for file, data in written.items():
            file.write_bytes(data)
    path.chmod(0o644)
    before = files(path)
    with pytest.raises(DatabaseRefusedError, match=why):
        prepare(path)
    assert files(path) == before
    connection.close()


def test_takes_back_a_change_that_was_broken_off(path: Path) -> None:
    prepare(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        # A page leaves the cache before the commit, so that the file has it and the journal what was there before.
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE half (text)")
        connection.executemany("INSERT INTO half VALUES (?)", [("x" * 3000,)] * 100)
        written = {file: file.read_bytes() for file in path.parent.iterdir()}
    for file, data in written.items():
        file.write_bytes(data)
    assert path.with_name(f"{path.name}-journal").stat().st_size
    with closing(prepare(path)) as connection:
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchone()


@pytest.mark.parametrize("spoil", [lambda path: os.truncate(path, 0), Path.unlink], ids=["empty", "missing"])
def test_a_log_without_its_file_is_not_thrown_away(path: Path, spoil) -> None:
    connection = prepare(path)
    connection.execute("INSERT INTO audit_log VALUES (1, 2, 'p', 'a', 's', 'ok')")
    log = path.with_name("agentspace.db-wal").read_bytes()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    path.with_name("agentspace.db-wal").write_bytes(log)
    spoil(path)
    before = files(path)
    with pytest.raises(DatabaseRefusedError, match=r"damaged \(it is empty or missing, and agentspace.db-wal is not\)"):
        prepare(path)
    assert files(path) == before


def test_brings_an_older_file_up_to_date(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    migrate.upgrade(connection)
    connection.close()
    made(path)


def test_what_the_system_denies_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="database cannot be used") as caught:
        prepare(tmp_path / "missing" / "agentspace.db")
    assert caught.value.reason == error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE


def test_one_gateway_a_file(path: Path) -> None:
    descriptor = lock(path)
    taken = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from gateway.storage.file import *; lock(pathlib.Path(sys.argv[1]))",
            path,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "in use by another gateway" in taken.stderr
    os.close(descriptor)
    os.close(lock(path))


def test_a_reading_connection_cannot_write(path: Path) -> None:
    made(path)
    connection = connect(path, read_only=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM sessions")
    close(connection)
    close(None)


def test_connecting_never_makes_a_file(path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        connect(path, read_only=False)
    assert not path.exists()
