"""Frames as lines for people."""

import pytest

from agentspace.cli import render


def test_controls_are_gone_and_text_stays() -> None:
    assert render.clean("a\x1b[31mb\x00\x7f\x9b\r\n\tc \u202eüλ🙂") == "a[31mb\n\tc üλ🙂"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0, "$0"), (1234.5, "$1,234.50"), (0.0015, "$0.001500"), (0.00000025, "$0.00000025")],
)
def test_dollars_have_enough_digits(amount: float, shown: str) -> None:
    assert render.dollars(amount) == shown
    assert render.dollars(amount, priced=False) == "unpriced"


def test_table_columns_line_up() -> None:
    shown = render.table(("name", "n"), [("a\nb", 10), ("longer", 5)], (1,))
    assert shown.splitlines() == ["name     n", "a b     10", "longer   5"]


def test_unpriced_usage_is_told() -> None:
    sums = {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3, "totalCost": 0, "requestCount": 1}
    total = {"totalTokens": 6, "totalCost": 0.5, "requestCount": 2, "unpricedCount": 1}
    shown = render.usage_table(
        {"perModel": {"m": {**sums, "unpricedCount": 1}, "k": {**sums, "totalCost": 0.5}}, "grandTotal": total}
    )
    rows = shown.splitlines()
    assert rows[1].startswith("k")
    assert rows[1].endswith("$0.500000")
    assert rows[2].endswith("unpriced")
    assert rows[3].endswith("$0.500000 + 1 unpriced")


def test_context_names_its_method() -> None:
    section = {"name": "history", "content": "x", "byteCount": 1, "tokenEstimate": 1, "costEstimate": 0}
    totals = {"byteCount": 1, "tokenEstimate": 1, "costEstimate": 0, "priced": False}
    section["tokenMethod"] = "estimate:o200k"
    shown = render.context_table({"sections": [section], "totals": totals, "model": "m"})
    assert shown.splitlines()[-1] == "model m; tokens by estimate:o200k"
    assert shown.count("unpriced") == 2


def test_the_end_of_an_answer() -> None:
    usage, cost = {"inputTokens": 1, "outputTokens": 2}, {"totalCost": 0, "priced": False}
    frame = {"usage": usage, "cost": cost, "state": "cancelled"}
    assert render.end_line(frame) == "cancelled, 1 in, 2 out, unpriced"
    assert render.end_line({**frame, "usageStatus": "partial"}) == "cancelled, about 1 in, 2 out, unpriced"


def test_messages_leave_out_thinking() -> None:
    blocks = [
        {"kind": "thinking", "text": "hm"},
        {"kind": "text", "text": "so"},
        {"kind": "tool_use", "text": "{}", "toolName": "search"},
    ]
    assert render.message_text({"blocks": blocks}) == "so\n[search] {}"


def test_long_lines_are_cut() -> None:
    assert render.line("one two", 5) == "one …"
    assert render.moment("2026-01-02T03:04:05.678Z") == "2026-01-02 03:04:05"
    assert render.moment(None) == ""
