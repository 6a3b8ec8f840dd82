"""Turns frames into lines for people. Called by the commands; does no I/O.

Everything that came from a server is cleaned of control characters, so that a text cannot steer the terminal.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

KEPT = frozenset("\n\t")
# With the controls, the marks that turn the direction of text around: they can hide what a line says.
UNWANTED = (range(0x20), range(0x7F, 0xA0), range(0x202A, 0x202F), range(0x2066, 0x206A))
CONTROLS = {code: None for codes in UNWANTED for code in codes if chr(code) not in KEPT}
ENDINGS = {
    "cancelled": "the answer was cancelled",
    "failed": "the answer failed",
    "interrupted": "the answer was interrupted",
    "refused": "the model refused to answer",
    "budget_stopped": "a budget ended the answer",
}
"""What to say of a turn's state, where it is not running and has no complete answer."""


def clean(text: str) -> str:
    """The text without control characters; line ends and tabs stay."""
    return text.translate(CONTROLS)


def line(text: str, width: int | None = None) -> str:
    """The text on one line, cut at `width` characters if there is one."""
    flat = " ".join(clean(text).split())
    return flat if width is None or len(flat) <= width else flat[: width - 1] + "…"


def dollars(amount: float, *, priced: bool = True) -> str:
    """An amount of US dollars: cents from one dollar on, more digits below; "unpriced" when the price is unknown."""
    if not priced:
        return "unpriced"
    if amount == 0:
        return "$0"
    if amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.6f}" if amount >= 0.000001 else f"${amount:.12f}".rstrip("0")


def moment(text: str | None) -> str:
    """A frame's time, to the second, as UTC."""
    return (text or "")[:19].replace("T", " ")


def table(head: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Columns under a head, two spaces apart; the columns numbered in `right` end at the right."""
    cells = [list(head), *([line(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def as_json(value: Mapping[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(value, ensure_ascii=False)


def message_text(message: Mapping[str, Any]) -> str:
    """A message's blocks as text; tool calls and results by their names."""
    parts = []
    for block in message["blocks"]:
        match block["kind"]:
            case "text":
                parts.append(block["text"])
            case "thinking":
                continue
            case _:
                parts.append(f"[{block.get('toolName') or block['kind']}] {block['text']}")
    return clean("\n".join(parts))


def ending(message: Mapping[str, Any], turns: Mapping[str, Mapping[str, Any]]) -> str:
    """What to say after a message that has no complete answer or is none; else empty. turns: those known, by id."""
    turn = turns.get(message.get("turnId") or "", {})
    if turn.get("state") in ENDINGS and turn.get("answerMessageId", "") in ("", message["messageId"]):
        return ENDINGS[turn["state"]]
    complete = all(block.get("complete", True) for block in message["blocks"])
    return "" if complete else "the answer is incomplete"


def context_table(frame: Mapping[str, Any]) -> str:
    """A context.inspection frame as a table."""
    priced = frame["totals"].get("priced", True)
    parts = [*frame["sections"], {**frame["totals"], "name": "total"}]
    rows = [
        (part["name"], part["byteCount"], part["tokenEstimate"], dollars(part["costEstimate"], priced=priced))
        for part in parts
    ]
    methods = sorted({section.get("tokenMethod", "") for section in frame["sections"]} - {""})
    note = f"\nmodel {line(frame.get('model', ''))}; tokens by {', '.join(methods)}" if methods else ""
    return table(("section", "bytes", "tokens", "cost"), rows, (1, 2, 3)) + note


def usage_table(frame: Mapping[str, Any]) -> str:
    """A usage.report frame as a table."""
    rows = [
        (model, of["requestCount"], of["inputTokens"], of["outputTokens"], of["totalTokens"], _cost(of))
        for model, of in sorted(frame["perModel"].items())
    ]
    total = frame["grandTotal"]
    rows.append(("total", total["requestCount"], "", "", total["totalTokens"], _cost(total)))
    return table(("model", "requests", "input", "output", "tokens", "cost"), rows, (1, 2, 3, 4, 5))


def sessions_table(sessions: Sequence[Mapping[str, Any]]) -> str:
    """Sessions as a table."""
    rows = [
        (
            session["sessionId"],
            session["model"],
            session["messageCount"],
            moment(session.get("updatedAt") or session["createdAt"]),
            line(session.get("title", ""), 40),
        )
        for session in sessions
    ]
    return table(("session", "model", "messages", "last used (UTC)", "title"), rows, (2,))


def end_line(frame: Mapping[str, Any]) -> str:
    """A chat.stream.end frame in a few words."""
    usage, cost = frame["usage"], frame["cost"]
    how = "" if frame.get("state") in (None, "completed") else f"{frame['state']}, "
    price = dollars(cost["totalCost"], priced=cost.get("priced", True))
    about = "about " if frame.get("usageStatus") in ("partial", "estimated") else ""
    return f"{how}{about}{usage['inputTokens']} in, {usage['outputTokens']} out, {price}"


def _cost(sums: Mapping[str, Any]) -> str:
    """What priced attempts cost, and how many have no price."""
    unpriced = sums.get("unpricedCount", 0)
    if not unpriced:
        return dollars(sums["totalCost"])
    if unpriced == sums["requestCount"]:
        return "unpriced"
    return f"{dollars(sums['totalCost'])} + {unpriced} unpriced"
