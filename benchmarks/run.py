"""Measures the product beside the bare copy: `make bench`, or `python -m benchmarks.run [STEP...]`.

Prints a table with ratios and goals; exits with status 1 when a delta was lost or repeated. Linux only: what processes
use is read from /proc, and servers and harness are kept on cores of their own.
"""

import argparse
import json
import os
import resource
import sys
from pathlib import Path

from benchmarks import chart, subjects
from benchmarks.measure import Bench
from benchmarks.processes import HARNESS_CORE
from benchmarks.report import Results, keep
from benchmarks.steps import STEPS, Setting


def main() -> None:
    """Run the steps, print the table, write what was asked for."""
    flags = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    flags.add_argument("steps", nargs="*", metavar="STEP", help=f"{', '.join(STEPS)} (all)")
    flags.add_argument("--rounds", type=int, default=3, help="how often each is measured; medians count (3)")
    flags.add_argument("--level", type=int, choices=(1, 2), default=2, help="the protocol of the sockets (2)")
    flags.add_argument("--json", type=Path, metavar="FILE", help="write everything there as JSON")
    flags.add_argument(
        "--keep", action="store_true", help="add the medians to benchmarks/history.jsonl and redraw docs/benchmarks.svg"
    )
    flags.add_argument("--loud", action="store_true", help="measure whatever else the machine does")
    given = flags.parse_args()
    if unknown := set(given.steps) - set(STEPS):
        flags.error(f"no such step: {', '.join(sorted(unknown))}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {HARNESS_CORE})
    results = Results()
    with subjects.folder() as folder:
        provider, port = subjects.upstream(folder)
        try:
            bench = Bench(folder, port, provider.pid, quiet=not given.loud)
            setting = Setting(bench, results.record, given.rounds, given.level)
            for name in given.steps or STEPS:
                print(f"{name} ...", file=sys.stderr, flush=True)
                STEPS[name](setting)
        finally:
            provider.stop()
    print(results.table())
    notes = {"rounds": given.rounds, "level": given.level, "noisy": bench.noisy, "broken": bench.broken}
    print(
        f"\nbroken turns: {bench.broken}; noisy measurements: {bench.noisy}; each figure is a median of {given.rounds}"
    )
    everything = results.as_json(notes)
    if given.json:
        given.json.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    if given.keep and not bench.broken:
        keep(everything)
        chart.redraw()
    sys.exit(1 if bench.broken else 0)


if __name__ == "__main__":
    main()
