"""The processes of a benchmark: starting them on the right core, stopping them, and what the system says they used.

Used by subjects and measure. Servers share the first core, the harness has the last; on one core there is no such
division and ratios are all that counts.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).parents[1]
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, HARNESS_CORE = CORES[0], CORES[-1]
LINE_SECONDS = 120
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """A Python module run as a process of its own; it says on stdout when it is ready."""

    def __init__(self, arguments: list[str], core: int, environment: Mapping[str, str], log: Path) -> None:
        own = os.sched_getaffinity(0)
        # A child inherits where it may run, and so do all of its threads.
        os.sched_setaffinity(0, {core})
        try:
            with log.open("ab") as stderr:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", *arguments],
                    cwd=ROOT,
                    env={**environment, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                )
        finally:
            os.sched_setaffinity(0, own)
        self.pid = self._process.pid
        self._name = arguments[0]
        self._log = log

    def line(self) -> bytes:
        """The next line it prints."""
        assert self._process.stdout is not None
        # One line at a time is written and nothing is left in the buffer, so that waiting on the pipe is right.
        heard, _, _ = select.select([self._process.stdout], [], [], LINE_SECONDS)
        line = self._process.stdout.readline() if heard else b""
        if not line:
            raise RuntimeError(f"{self._name} ended or keeps silent:\n{self._log.read_text()[-3000:]}")
        return line

    def answer(self) -> dict[str, Any]:
        """The next line as JSON."""
        answer: dict[str, Any] = orjson.loads(self.line())
        return answer

    def go(self) -> None:
        """Give the word."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def environment(**changes: str) -> dict[str, str]:
    """What a process gets to see: nothing that could change its behaviour."""
    return {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ} | changes


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time the processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * _TICK


def memory(pids: Iterable[int]) -> int:
    """Resident bytes of the processes."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE for pid in pids)


def busy_seconds() -> float:
    """User and system time of the whole machine."""
    user, nice, system = (int(field) for field in Path("/proc/stat").read_text().split()[1:4])
    return (user + nice + system) * _TICK


class Window:
    """Between two looks: what some processes used, and what everybody else did."""

    def __init__(self, measured: Iterable[int], others: Iterable[int]) -> None:
        self._measured = list(measured)
        self._all = [*self._measured, *others, os.getpid()]
        self._began = time.monotonic()
        self._cpu = cpu_seconds(self._measured)
        self._own = cpu_seconds(self._all)
        self._busy = busy_seconds()

    def close(self) -> tuple[float, float, float]:
        """Seconds of CPU the measured processes used, cores foreign programs kept busy, and seconds by the clock."""
        seconds = time.monotonic() - self._began
        own = cpu_seconds(self._all) - self._own
        foreign = max(busy_seconds() - self._busy - own, 0.0) / seconds
        return cpu_seconds(self._measured) - self._cpu, foreign, seconds
