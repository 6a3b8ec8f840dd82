import subprocess
import sys
from pathlib import Path

from benchmarks import chart, subjects
from benchmarks.measure import Bench
from benchmarks.plan import Plan
from benchmarks.processes import Process
from benchmarks.stamp import ages, is_whole, stamp

TINY = Plan("chats", sockets=2, deltas=10, gap_us=1_000)
ROOT = Path(__file__).parents[2]


def test_floor_and_product_lose_nothing() -> None:
    with subjects.folder() as folder:
        provider, port = subjects.upstream(folder)
        running: list[Process | subjects.Subject] = [provider]
        try:
            bench = Bench(folder, port, provider.pid, quiet=False)
            for name in ("floor", "two"):
                subject = subjects.start(name, folder, port, level=2)
                running.append(subject)
                sample = bench.sample(subject, TINY)
                assert (sample.outcome["turns"], sample.outcome["deltas"], sample.outcome["broken"]) == (2, 20, 0)
                assert sample.memory > 0
            assert bench.sample(None, TINY).outcome["broken"] == 0
        finally:
            for process in reversed(running):
                process.stop()


def test_lost_repeated_and_swapped_deltas_are_seen() -> None:
    answer = [stamp(number).decode() for number in range(4)]
    assert is_whole("".join(answer), 4)
    assert all(age >= 0 for age in ages("".join(answer), 10**12))
    for broken in (answer[:3], [*answer, answer[3]], [answer[1], answer[0], *answer[2:]], [*answer[:3], answer[2]]):
        assert not is_whole("".join(broken), 4)


def test_chart_shows_the_newest_ratio() -> None:
    run = {"medians": {"paced_cpu_us": {"floor": 50.0, "two": 100.0, "one": 60.0}}}
    assert "2.00x" in chart.draw([run, run])


def test_unknown_step_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", "warp"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no such step: warp" in done.stderr
