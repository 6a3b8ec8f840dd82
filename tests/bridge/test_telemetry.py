"""telemetry.py: log lines are JSON, tokens stay out of them, and metrics are read when asked for."""

import json
import logging
import sys

from aiohttp.http_exceptions import LineTooLong

from bridge.telemetry import JsonFormatter, Metrics, quiet_bad_requests


def record(error: Exception | None = None, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "bridge.calls", "levelname": "WARNING", "msg": "lost %s", "args": ("it",)})
    vars(made).update(extra)
    if error is not None:
        try:
            raise error
        except type(error):
            made.exc_info = sys.exc_info()
    return made


def test_lines_are_json_with_what_was_given_beside() -> None:
    line = json.loads(JsonFormatter().format(record(ValueError("why"), code="UNAVAILABLE")))
    assert (line["level"], line["logger"], line["message"], line["code"]) == (
        "warning",
        "bridge.calls",
        "lost it",
        "UNAVAILABLE",
    )
    assert "ValueError: why" in line["exception"]


def test_malformed_requests_are_not_logged() -> None:
    assert quiet_bad_requests(record())
    assert quiet_bad_requests(record(ValueError("x")))
    assert not quiet_bad_requests(record(LineTooLong(b"Authorization: Bearer s3cret", 8190)))


def test_metrics_show_the_present() -> None:
    numbers = {"sockets": 1}
    metrics = Metrics(lambda: numbers["sockets"], lambda: 5, lambda: 7)
    assert "agentspace_bridge_connections 1.0" in metrics.text()
    numbers["sockets"] = 2
    text = metrics.text()
    assert "agentspace_bridge_connections 2.0" in text
    assert 'agentspace_bridge_frames_total{direction="received"} 5.0' in text
