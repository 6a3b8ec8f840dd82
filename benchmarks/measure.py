"""One measurement: a subject carries out a plan while the system's clock of its processes runs. Used by steps."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from benchmarks.plan import Plan
from benchmarks.processes import HARNESS_CORE, Process, Window, environment, memory
from benchmarks.subjects import Subject

FOREIGN_CORES = 0.25
"""A measurement during which other programs kept more than this busy is repeated, or marked when it stays so."""
REPEATS = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """What came of a plan. `cpu` is in seconds, `memory` in bytes at the moment of the word, `foreign` in cores."""

    cpu: float
    foreign: float
    memory: int
    outcome: dict[str, Any]

    def per(self, unit: str) -> float:
        """Microseconds of CPU per delta or turn."""
        return self.cpu * 1e6 / float(self.outcome[unit])


class Bench:
    """Carries out plans. `quiet` False takes every measurement as it comes."""

    def __init__(self, folder: Path, provider: int, provider_pid: int, *, quiet: bool = True) -> None:
        self.folder = folder
        self.provider = provider
        self._provider_pid = provider_pid
        self._repeats = REPEATS if quiet else 0
        self.noisy = 0
        self.broken = 0

    def sample(self, subject: Subject | None, plan: Plan) -> Sample:
        """The quietest of a few tries; the first that is quiet enough ends them. No subject: the upstream itself."""
        best: Sample | None = None
        for _ in range(1 + self._repeats):
            sample = self._once(subject, plan)
            self.broken += sample.outcome["broken"]
            if best is None or sample.foreign < best.foreign:
                best = sample
            if best.foreign <= FOREIGN_CORES:
                return best
        assert best is not None
        self.noisy += 1
        return best

    def _once(self, subject: Subject | None, plan: Plan) -> Sample:
        if subject is None:
            plan, pids = replace(plan, port=self.provider, direct=True), []
        else:
            plan, pids = replace(plan, port=subject.port, level=subject.level), subject.pids
        arguments = ["benchmarks.client", orjson.dumps(asdict(plan)).decode()]
        client = Process(arguments, HARNESS_CORE, environment(), self.folder / "client.log")
        try:
            client.line()
            resident = memory(pids)
            window = Window(pids, [client.pid, self._provider_pid])
            client.go()
            outcome = client.answer()
            cpu, foreign, _ = window.close()
        finally:
            client.stop()
        return Sample(cpu, foreign, resident, outcome)
