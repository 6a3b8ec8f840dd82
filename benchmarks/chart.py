"""Draws docs/benchmarks.svg from the history: what the product costs in units of the bare copy, run by run.

`python -m benchmarks.chart`; run calls `draw` after it has added to the history. Plain SVG, readable on light and dark.
"""

import json
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT
from benchmarks.report import GOALS, HISTORY

PICTURE = ROOT / "docs" / "benchmarks.svg"
FIGURES = {
    "paced_cpu_us": "CPU per lone delta",
    "saturated_cpu_us": "CPU per delta, saturated",
    "short_cpu_us": "CPU per short stored turn",
}
COLOURS = {"two": "#c2410c", "one": "#2563eb"}
NAMES = {"two": "two processes", "one": "one process"}
RUNS = 30
WIDTH, HEIGHT, LEFT, TOP, GAP = 300, 170, 36, 52, 24


def ratios(history: list[dict[str, Any]], figure: str, subject: str) -> list[tuple[int, float]]:
    """(number of the run, figure of the subject over the floor's), where a run has both."""
    found = []
    for number, run in enumerate(history):
        medians = run["medians"].get(figure, {})
        if medians.get("floor") and subject in medians:
            found.append((number, medians[subject] / medians["floor"]))
    return found


def draw(history: list[dict[str, Any]]) -> str:
    """The picture of the newest runs."""
    history = history[-RUNS:]
    width = LEFT + len(FIGURES) * (WIDTH + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + HEIGHT + 40}">',
        '<g font-family="system-ui, sans-serif" font-size="11" fill="#888">',
        "<title>What the product costs, in units of a bare copy of the same stream</title>",
    ]
    for place, (subject, colour) in enumerate(COLOURS.items()):
        x = LEFT + place * 130
        parts.append(f'<rect x="{x}" y="8" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="17">{NAMES[subject]}</text>')
    parts.append(
        f'<text x="{LEFT + 260}" y="17">dashed: the goals; times the bare copy; newest run on the right</text>'
    )
    for place, (figure, title) in enumerate(FIGURES.items()):
        parts += _panel(history, figure, title, LEFT + place * (WIDTH + GAP))
    return "\n".join([*parts, "</g>", "</svg>", ""])


def _panel(history: list[dict[str, Any]], figure: str, title: str, left: int) -> list[str]:
    lines = {subject: ratios(history, figure, subject) for subject in COLOURS}
    goal = GOALS[figure]
    top = max([2.0, goal.two, goal.one, *(value for line in lines.values() for _, value in line)]) * 1.1
    last = max(len(history) - 1, 1)

    def y(value: float) -> float:
        return round(TOP + HEIGHT * (1 - value / top), 1)

    def x(number: int) -> float:
        return round(left + 8 + (WIDTH - 50) * number / last, 1)

    parts = [f'<text x="{left}" y="{TOP - 12}" font-weight="600">{escape(title)}</text>']
    for step in range(0, int(top) + 1, max(1, round(top / 5))):
        parts.append(f'<path d="M{left} {y(step)}h{WIDTH - 40}" stroke="#888" stroke-opacity=".25"/>')
        parts.append(f'<text x="{left - 6}" y="{y(step) + 4}" text-anchor="end">{step}</text>')
    for subject, colour in COLOURS.items():
        aim = y(goal.two if subject == "two" else goal.one)
        parts.append(f'<path d="M{left} {aim}h{WIDTH - 40}" stroke="{colour}" stroke-dasharray="4 4"/>')
        points = " ".join(f"{x(number)},{y(value)}" for number, value in lines[subject])
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(n)}" cy="{y(v)}" r="2.5" fill="{colour}"/>' for n, v in lines[subject]]
        if lines[subject]:
            number, value = lines[subject][-1]
            parts.append(f'<text x="{x(number) + 6}" y="{y(value) + 4}" fill="{colour}">{value:.2f}x</text>')
    return parts


def redraw(history: Path = HISTORY, picture: Path = PICTURE) -> None:
    """Write the picture of the history file."""
    runs = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    picture.parent.mkdir(exist_ok=True)
    picture.write_text(draw(runs), encoding="utf-8")


if __name__ == "__main__":
    redraw()
