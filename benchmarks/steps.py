"""The steps of the benchmark: which plans a step carries out on whom, and what it records. Called by run.

Every step has fresh servers of its own. Where figures are ratios, the subjects take turns, so that whatever else the
machine does hits all of them.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from benchmarks import fill, subjects
from benchmarks.measure import Bench, Sample
from benchmarks.plan import Plan
from benchmarks.processes import memory
from benchmarks.subjects import Subject

# The chats begin 20.4 ms apart: at multiples of their gap all deltas would come in bunches, and none alone.
PACED = Plan("chats", sockets=50, deltas=150, gap_us=20_000, first_us=5_000, stagger_us=1_020_000)
SATURATED = Plan("chats", sockets=64, deltas=800, gap_us=2_000, stagger_us=100_000)
SHORT = Plan("chats", sockets=16, turns=60, deltas=20)
LOW = Plan("chats", sockets=2, turns=12, deltas=40, gap_us=20_000, first_us=5_000, stagger_us=10_000)
ALONE = Plan("watched", deltas=150, gap_us=20_000)
WATCHED = Plan("watched", deltas=150, gap_us=20_000, watchers=200)
IDLE = Plan("idle", sockets=5_000)
ONE_CHAT = Plan("chats", deltas=3)
SESSIONS = (1_000, 1_000_000)
FULL_SHORT = Plan("chats", sockets=16, turns=60, deltas=20)
# 17 characters each: 64 KiB sixteen times, and 4 MiB.
OF_64_KIB = Plan("chats", turns=16, deltas=3_855)
OF_4_MIB = Plan("chats", deltas=246_723)
# Long enough to be old to the garbage collector.
YOUNG, OLD = SHORT, replace(SHORT, turns=625, deltas=200)

Record = Callable[[str, str, float], None]
"""Takes a figure's name, the subject's and a value."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a step is given. `level` is that of the product's sockets."""

    bench: Bench
    record: Record
    rounds: int
    level: int

    @contextmanager
    def running(self, *names: str) -> Iterator[list[Subject]]:
        """Fresh servers."""
        with subjects.folder() as folder, ExitStack() as stack:
            started = []
            for name in names:
                subject = subjects.start(name, folder, self.bench.provider, self.level)
                stack.callback(subject.stop)
                started.append(subject)
            yield started


def paced(setting: Setting) -> None:
    """Every delta comes alone: 50 chats, one every 20 ms. What that costs varies most, so it is measured twice as
    often."""
    with setting.running("floor", "two", "one") as running:
        for _ in range(2 * setting.rounds):
            direct = setting.bench.sample(None, PACED)
            for subject in running:
                sample = setting.bench.sample(subject, PACED)
                setting.record("paced_cpu_us", subject.name, sample.per("deltas"))
                setting.record("paced_age_p99_ms", subject.name, _added(sample, direct, "age_ms", "p99"))


def saturated(setting: Setting) -> None:
    """More than a core can do: 64 chats, a delta every 2 ms."""
    with setting.running("floor", "two", "one") as running:
        for _ in range(setting.rounds):
            for subject in running:
                sample = setting.bench.sample(subject, SATURATED)
                setting.record("saturated_cpu_us", subject.name, sample.per("deltas"))


def short(setting: Setting) -> None:
    """A new session each turn, 20 deltas back to back, everything stored."""
    with setting.running("floor", "two", "one") as running:
        for _ in range(setting.rounds):
            for subject in running:
                _short(setting, subject, SHORT, "short")


def _short(setting: Setting, subject: Subject, plan: Plan, name: str) -> None:
    sample = setting.bench.sample(subject, plan)
    setting.record(f"{name}_cpu_us", subject.name, sample.per("turns"))
    setting.record(f"{name}_rate", subject.name, sample.outcome["turns"] / sample.outcome["seconds"])


def low(setting: Setting) -> None:
    """Two chats: what a lone user waits longer than the provider makes them wait."""
    with setting.running("floor", "two", "one") as running:
        for _ in range(setting.rounds):
            direct = setting.bench.sample(None, LOW)
            for subject in running:
                sample = setting.bench.sample(subject, LOW)
                for part in ("p50", "p99"):
                    setting.record(f"low_first_{part}_ms", subject.name, _added(sample, direct, "first_ms", part))
                    setting.record(f"low_age_{part}_ms", subject.name, _added(sample, direct, "age_ms", part))


def _added(sample: Sample, direct: Sample, what: str, part: str) -> float:
    return max(float(sample.outcome[what][part]) - float(direct.outcome[what][part]), 0.0)


def fanout(setting: Setting) -> None:
    """One chat with 200 watchers, against the same chat without."""
    if setting.level == 1:
        return
    with setting.running("two", "one") as running:
        for _ in range(setting.rounds):
            for subject in running:
                alone, watched = setting.bench.sample(subject, ALONE), setting.bench.sample(subject, WATCHED)
                further = watched.outcome["deltas"] - alone.outcome["deltas"]
                setting.record("fanout_cpu_us", subject.name, (watched.cpu - alone.cpu) * 1e6 / further)


def idle(setting: Setting) -> None:
    """Memory of servers that have held a chat, and of 5,000 sockets that say nothing."""
    for name in ("floor", "two", "one"):
        with setting.running(name) as (subject,):
            setting.bench.sample(subject, ONE_CHAT)
            before = memory(subject.pids)
            sample = setting.bench.sample(subject, IDLE)
            setting.record("idle_servers_mb", name, before / 1e6)
            setting.record("idle_socket_kib", name, (sample.memory - before) / 1024 / IDLE.sockets)


def long(setting: Setting) -> None:
    """What a delta costs in an answer of 64 KiB and in one of 4 MiB, back to back."""
    with setting.running("floor", "two", "one") as running:
        for _ in range(setting.rounds):
            for subject in running:
                for name, plan in (("64kib", OF_64_KIB), ("4mib", OF_4_MIB)):
                    sample = setting.bench.sample(subject, plan)
                    setting.record(f"long_{name}_cpu_us", subject.name, sample.per("deltas"))


def aged(setting: Setting) -> None:
    """Short turns and memory of young servers, and after 10,000 longer turns."""
    for name in ("two", "one"):
        with setting.running(name) as (subject,):
            for age, plan in (("young", YOUNG), ("old", OLD)):
                setting.bench.sample(subject, plan)
                setting.record(f"{age}_mb", name, memory(subject.pids) / 1e6)
                for _ in range(setting.rounds):
                    setting.record(f"{age}_cpu_us", name, setting.bench.sample(subject, YOUNG).per("turns"))


def guarded(setting: Setting) -> None:
    """Short turns of a bearer with idempotency keys and a stored provider key, whose every use is audited, against
    those of a local peer with the environment's key."""
    for name in ("two", "one"):
        with subjects.folder() as folder:
            plain = subjects.start(name, folder, setting.bench.provider, setting.level, home="plain")
            kept = subjects.start(name, folder, setting.bench.provider, setting.level, home="kept", key="")
            try:
                token = (kept.home / "token").read_text(encoding="ascii").strip()
                put: dict[str, object] = {"type": "key.put", "id": "1", "provider": "anthropic", "key": subjects.KEY}
                setting.bench.sample(kept, Plan("asked", turns=2, token=token, request=put))
                for _ in range(setting.rounds):
                    setting.record("guarded_off_cpu_us", name, setting.bench.sample(plain, SHORT).per("turns"))
                    plan = replace(SHORT, token=token, keyed=True)
                    setting.record("guarded_on_cpu_us", name, setting.bench.sample(kept, plan).per("turns"))
            finally:
                kept.stop()
                plain.stop()


def lists(setting: Setting) -> None:
    """Pages, totals and short turns on a store with a thousand sessions and with a million."""
    for sessions in SESSIONS:
        with subjects.folder() as folder:
            subjects.start("two", folder, setting.bench.provider, setting.level, home="home").stop()
            known = fill.fill(folder / "home" / "agentspace.db", sessions)
            for name in ("two", "one"):
                subject = subjects.start(name, folder, setting.bench.provider, setting.level, home="home")
                try:
                    _ask(setting, subject, sessions, known)
                    for _ in range(setting.rounds):
                        _short(setting, subject, FULL_SHORT, f"short_at_{sessions}")
                finally:
                    subject.stop()


def _ask(setting: Setting, subject: Subject, sessions: int, known: str) -> None:
    requests: dict[str, dict[str, object]] = {
        "sessions": {"type": "session.list", "id": "1", "pageSize": 50},
        "history": {"type": "session.history", "id": "1", "sessionId": known, "pageSize": 50},
        "usage": {"type": "usage.query", "id": "1"},
    }
    for name, request in requests.items():
        plan = Plan("asked", turns=400, request=request)
        for _ in range(setting.rounds):
            answers = setting.bench.sample(subject, plan).outcome["answer_ms"]
            for part in ("p50", "p99"):
                setting.record(f"{name}_{part}_ms_at_{sessions}", subject.name, answers[part])


STEPS: dict[str, Callable[[Setting], None]] = {
    step.__name__: step for step in (paced, saturated, short, low, fanout, idle, long, aged, guarded, lists)
}
