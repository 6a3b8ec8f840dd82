"""The ledger in a transaction: the port `Usage` over usage_records and their roll-ups. Called by use cases, through
transaction.
"""

from sqlalchemy import insert, literal_column, select
from sqlalchemy.dialects.sqlite import insert as upsert

from gateway.domain.usage import Charge, ModelTotal, TokenCounts, UsageRecord
from gateway.storage.numbers import Numbers
from gateway.storage.statement import Link, Row, Statement, limited, value
from gateway.storage.tables import COUNTS, sessions, usage_records, usage_totals

_r = usage_records.c
_t = usage_totals.c
_FIELDS = (
    "turn_id",
    "attempt",
    "model",
    "provider",
    *COUNTS,
    "input_pico",
    "output_pico",
    "priced",
    "price_version",
    "status",
    "outcome",
    "created_ms",
)
_SUMS = ("input_tokens", "output_tokens", "total_pico", "requests", "unpriced")
_SESSION_NO = select(sessions.c.session_no).where(sessions.c.session_id == value("session_id")).scalar_subquery()

_INSERT = Statement(
    insert(usage_records).values({name: value(name) for name in ("session_no", *_FIELDS)}),
    " ".join(("session_no", *_FIELDS)),
)
# The session's sums and everybody's. The second row has the same values but for the number, which stands for all.
_TOTAL = ("model", *_SUMS)
_new_rows = upsert(usage_totals).values(
    [
        {"session_no": value("session_no")} | {name: value(name) for name in _TOTAL},
        {"session_no": literal_column("0")} | {name: value(f"all_{name}") for name in _TOTAL},
    ]
)
_ADD = Statement(
    _new_rows.on_conflict_do_update(
        index_elements=["session_no", "model"],
        set_={name: _t[name] + _new_rows.excluded[name] for name in _SUMS},
    ),
    " ".join(["session_no", *_TOTAL, *(f"all_{name}" for name in _TOTAL)]),
)
_select_totals = select(_t.model, *(_t[name] for name in _SUMS)).order_by(_t.model)
_TOTALS = Statement(_select_totals.where(_t.session_no == literal_column("0")))
_TOTALS_OF_SESSION = Statement(_select_totals.where(_t.session_no == _SESSION_NO), "session_id")

_select_records = limited(
    select(sessions.c.session_id, *(_r[name] for name in _FIELDS), _r.record_id)
    .join_from(usage_records, sessions, sessions.c.session_no == _r.session_no)
    .where(_r.record_id < value("after"))
    .order_by(_r.record_id.desc())
)
_PAGE = Statement(_select_records, "after limit")
_PAGE_OF_SESSION = Statement(_select_records.where(_r.session_no == _SESSION_NO), "after session_id limit")
_END = 2**63 - 1


class SqlUsage:
    """See the port."""

    __slots__ = ("_link", "_numbers")

    def __init__(self, link: Link, numbers: Numbers) -> None:
        self._link = link
        self._numbers = numbers

    def insert(self, record: UsageRecord) -> None:
        """Add a row and keep the roll-ups in step."""
        counts, charge = record.counts, record.charge
        session_no = self._numbers.session(record.session_id)
        self._link.run(
            _INSERT,
            session_no,
            record.turn_id,
            record.attempt,
            record.model,
            record.provider,
            counts.uncached_input,
            counts.cache_write_5m,
            counts.cache_write_1h,
            counts.cache_read,
            counts.output,
            counts.thinking,
            counts.server_tool_requests,
            charge.input_pico,
            charge.output_pico,
            int(charge.priced),
            charge.price_version,
            record.status,
            record.outcome,
            record.created_ms,
        )
        total_pico = charge.total_pico if charge.priced else 0
        # An attempt without a token, one that was refused for instance, is a row of the ledger but no use of the model.
        used = int(counts.total > 0)
        sums = (record.model, counts.input, counts.output, total_pico, used, used * int(not charge.priced))
        self._link.run(_ADD, session_no, *sums, *sums)

    def totals(self, session_id: str | None) -> dict[str, ModelTotal]:
        """Sums by model, from the roll-ups."""
        rows = self._link.all(_TOTALS) if session_id is None else self._link.all(_TOTALS_OF_SESSION, session_id)
        return {model: ModelTotal(*sums) for model, *sums in rows}

    def page(self, session_id: str | None, *, after: int | None, limit: int) -> list[UsageRecord]:
        """Newest first by record_id; `after` is that of the last one seen."""
        start = _END if after is None else after
        if session_id is None:
            rows = self._link.all(_PAGE, start, limit)
        else:
            rows = self._link.all(_PAGE_OF_SESSION, start, session_id, limit)
        return [_record(row) for row in rows]


def _record(row: Row) -> UsageRecord:
    session_id, turn_id, attempt, model, provider, *counts = row[:12]
    input_pico, output_pico, priced, price_version, status, outcome, created_ms, record_id = row[12:]
    return UsageRecord(
        session_id,
        turn_id,
        attempt,
        model,
        provider,
        TokenCounts(*counts),
        Charge(input_pico, output_pico, bool(priced), price_version),
        status,
        outcome,
        created_ms,
        record_id,
    )
