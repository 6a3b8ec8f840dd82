"""What is measured: the floor, the product as two processes, the product as one. Each on the first core.

Made by run. A subject has the port of its WebSocket and the processes whose CPU and memory count.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import HARNESS_CORE, SERVER_CORE, Process, environment

LEVEL_OF_FLOOR = 1
MODEL = "claude-sonnet-5-5"
KEY = "bench"


class Subject:
    """A running server; `level` is what its sockets are asked for."""

    def __init__(self, name: str, processes: list[Process], port: int, level: int, home: Path = Path()) -> None:
        self.name = name
        self.home = home
        self.port = port
        self.level = level
        self.pids = [process.pid for process in processes]
        self._processes = processes

    def stop(self) -> None:
        """End it."""
        for process in reversed(self._processes):
            process.stop()


def upstream(folder: Path) -> tuple[Process, int]:
    """The provider, on the harness's core."""
    process = Process(["benchmarks.upstream"], HARNESS_CORE, environment(), folder / "upstream.log")
    return process, int(process.answer()["port"])


def start(name: str, folder: Path, provider: int, level: int, home: str = "", key: str = KEY) -> Subject:
    """Start the subject of that name; the product's folder is `home` within `folder`, and `key` the provider key in its
    environment."""
    if name == "floor":
        return _floor(folder, provider)
    return (_two if name == "two" else _one)(folder, _environment(provider, key), level, folder / (home or name))


def _floor(folder: Path, provider: int) -> Subject:
    process = Process(
        ["benchmarks.floor", f"http://127.0.0.1:{provider}"], SERVER_CORE, environment(), folder / "floor.log"
    )
    return Subject("floor", [process], int(process.answer()["port"]), LEVEL_OF_FLOOR)


def _two(folder: Path, seen: dict[str, str], level: int, home: Path) -> Subject:
    """Gateway and bridge, over gRPC."""
    socket = home / "gateway.sock"
    where = ["--home", str(home), "--host", "127.0.0.1"]
    flags = ["--grpc-port", "0", "--socket", str(socket), "--model", MODEL]
    gateway = Process(["gateway", *where, *flags], SERVER_CORE, seen, folder / "gateway.log")
    gateway.answer()
    flags = ["--port", "0", "--gateway", f"unix:{socket}"]
    bridge = Process(["bridge", *where, *flags], SERVER_CORE, seen, folder / "bridge.log")
    return Subject("two", [gateway, bridge], int(bridge.answer()["port"]), level, home)


def _one(folder: Path, seen: dict[str, str], level: int, home: Path) -> Subject:
    """Both in one process."""
    flags = ["--home", str(home), "--host", "127.0.0.1", "--port", "0", "--grpc-port", "0", "--model", MODEL]
    process = Process(["standalone", *flags], SERVER_CORE, seen, folder / "standalone.log")
    return Subject("one", [process], int(process.answer()["port"]), level, home)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for homes and logs, gone afterwards. Its name is short: a Unix socket's path has room for about 100
    characters."""
    path = Path(tempfile.mkdtemp(prefix="as-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _environment(provider: int, key: str) -> dict[str, str]:
    changes = {"ANTHROPIC_API_KEY": key} if key else {}
    return environment(ANTHROPIC_BASE_URL=f"http://127.0.0.1:{provider}", **changes)
