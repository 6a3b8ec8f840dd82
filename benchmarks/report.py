"""Results: the table for a person, the JSON for a program, and the line of medians that the history keeps. Called by
run."""

import json
import platform
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.processes import ROOT

HISTORY = ROOT / "benchmarks" / "history.jsonl"
LIBRARIES = ("aiohttp", "anthropic", "grpcio", "orjson", "protobuf", "SQLAlchemy", "uvloop")
SUBJECTS = ("floor", "two", "one")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should be at most (`at_least`: at least) for the product as two processes and as one.

    `of_floor`: the goals are for the ratio to the floor, not for the figure.
    """

    two: float
    one: float
    of_floor: bool = False
    at_least: bool = False


MILLION = 1_000_000
GOALS = {
    "paced_cpu_us": Goal(2.0, 1.3, of_floor=True),
    "paced_age_p99_ms": Goal(5, 4),
    "saturated_cpu_us": Goal(1.3, 1.1, of_floor=True),
    "short_cpu_us": Goal(1.8, 1.4, of_floor=True),
    "low_first_p50_ms": Goal(2.5, 2),
    "low_first_p99_ms": Goal(5, 4),
    "low_age_p99_ms": Goal(3, 2),
    "fanout_cpu_us": Goal(12, 9),
    "idle_socket_kib": Goal(20, 20),
    "idle_servers_mb": Goal(160, 110),
    f"sessions_p50_ms_at_{MILLION}": Goal(1, 1),
    f"history_p50_ms_at_{MILLION}": Goal(1, 1),
    f"usage_p50_ms_at_{MILLION}": Goal(1, 1),
    "short_rate_kept": Goal(0.9, 0.9, at_least=True),
    "long_cpu_grows": Goal(1.3, 1.3),
    "age_mb_grows": Goal(1.1, 1.1),
    "guarded_cpu_grows": Goal(1.25, 1.25),
}

RATIOS = {
    "short_rate_kept": (f"short_at_{MILLION}_rate", "short_at_1000_rate"),
    "long_cpu_grows": ("long_4mib_cpu_us", "long_64kib_cpu_us"),
    "age_cpu_grows": ("old_cpu_us", "young_cpu_us"),
    "age_mb_grows": ("old_mb", "young_mb"),
    "guarded_cpu_grows": ("guarded_on_cpu_us", "guarded_off_cpu_us"),
}
"""Figures that are one figure over another of the same subject."""


class Results:
    """Every value of every figure and subject."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[float]]] = {}

    def record(self, figure: str, subject: str, value: float) -> None:
        """One more value."""
        self._values.setdefault(figure, {}).setdefault(subject, []).append(value)

    def medians(self) -> dict[str, dict[str, float]]:
        """By figure and subject; with them, the RATIOS."""
        found = {
            figure: {subject: round(median(values), 3) for subject, values in by_subject.items()}
            for figure, by_subject in self._values.items()
        }
        for name, (above, below) in RATIOS.items():
            if above in found and below in found:
                found[name] = {s: round(value / found[below][s], 3) for s, value in found[above].items()}
        return found

    def as_json(self, notes: dict[str, Any]) -> dict[str, Any]:
        """Everything, with where and of what it was measured."""
        return {**circumstances(), **notes, "medians": self.medians(), "values": self._values}

    def table(self) -> str:
        """Medians, ratios to the floor and goals; a figure that misses its goal is marked with !."""
        rows: list[tuple[str, ...]] = [("", "floor", "two", "one", "two/floor", "one/floor", "goal two", "goal one")]
        rows += [_row(figure, found, GOALS.get(figure)) for figure, found in self.medians().items()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(_aligned(row, widths) for row in rows)


def _row(figure: str, found: dict[str, float], goal: Goal | None) -> tuple[str, ...]:
    floor = found.get("floor", 0.0)
    ratios = {subject: found[subject] / floor for subject in ("two", "one") if floor and subject in found}
    goals = []
    for subject in ("two", "one"):
        if goal is None:
            goals.append("")
            continue
        aim = goal.two if subject == "two" else goal.one
        seen = (ratios if goal.of_floor else found).get(subject)
        missed = seen is not None and (seen < aim if goal.at_least else seen > aim)
        sign = ">=" if goal.at_least else "<="
        goals.append(f"{sign} {aim:g}{'x' if goal.of_floor else ''}{' !' if missed else ''}")
    shown = [f"{found[subject]:.4g}" if subject in found else "" for subject in SUBJECTS]
    return (figure, *shown, *(f"{ratios[s]:.2f}" if s in ratios else "" for s in ("two", "one")), *goals)


def _aligned(row: Iterable[str], widths: list[int]) -> str:
    name, *rest = row
    return "  ".join(
        [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
    )


def circumstances() -> dict[str, Any]:
    """When, on what, of which commit."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": _processor(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def keep(results: dict[str, Any], path: Path = HISTORY) -> None:
    """Add the medians to the history."""
    line = {name: results[name] for name in ("date", "commit", "python", "machine", "noisy", "medians")}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", "agentspace", "bridge", "gateway", "standalone")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
