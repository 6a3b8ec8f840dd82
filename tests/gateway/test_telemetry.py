"""telemetry.py: log lines that are JSON, and metrics whose labels stay few."""

import json
import logging
import sys

from prometheus_client.parser import text_string_to_metric_families

from agentspace.v1 import turn_pb2
from gateway.domain.turn import Turn
from gateway.domain.usage import TokenCounts, TurnUsage
from gateway.rpc.methods import Method
from gateway.telemetry import JsonFormatter, Metrics, set_up_logging

COUNTS = TokenCounts(1, 2, 3, 4, 5, 5)


def a_turn(state: turn_pb2.TurnState.ValueType) -> Turn:
    return Turn("t", "s", "m", state, "model", 1, usage=TurnUsage(COUNTS, attempts=1))


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def line(record: logging.LogRecord) -> dict[str, object]:
    text = JsonFormatter().format(record)
    assert "\n" not in text
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def test_a_line_is_one_object_with_its_extras() -> None:
    record = logging.makeLogRecord(
        {"name": "gateway.app", "levelno": 20, "levelname": "INFO", "msg": "two\nlines %s", "args": ("x",), "turns": 3}
    )
    found = line(record)
    assert found.pop("time")
    assert found == {"level": "info", "logger": "gateway.app", "message": "two\nlines x", "turns": 3}


def test_an_exception_is_in_the_line_and_anything_can_be_an_extra() -> None:
    try:
        raise ValueError("wrong")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info(), "odd": object()})
    found = line(record)
    assert "ValueError: wrong" in str(found["exception"])
    assert "object" in str(found["odd"])


def test_libraries_that_log_what_they_do_are_quiet() -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    noisy = ("alembic",)
    levels = {name: logging.getLogger(name).level for name in noisy}
    try:
        root.handlers.clear()
        set_up_logging()
        assert isinstance(root.handlers[0].formatter, JsonFormatter)
        assert all(not logging.getLogger(name).isEnabledFor(logging.INFO) for name in noisy)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        for name, old in levels.items():
            logging.getLogger(name).setLevel(old)


def test_metrics() -> None:
    metrics = Metrics(lambda: 2, lambda: 3)
    method = Method("agentspace.v1.S", "Name", "", "", True, Turn, Turn, None, None)  # type: ignore[arg-type]
    metrics.called(method, "OK")
    metrics.called(method, "OK")
    metrics.called(method, "INTERNAL")
    metrics.turn_ended(a_turn(turn_pb2.TURN_STATE_COMPLETED))
    metrics.turn_ended(a_turn(turn_pb2.TURN_STATE_FAILED))
    found = samples(metrics)
    assert {key: value for key, value in found.items() if key[0] == "agentspace_calls_total"} == {
        ("agentspace_calls_total", ("OK", "Name")): 2,
        ("agentspace_calls_total", ("INTERNAL", "Name")): 1,
    }
    assert found["agentspace_turns_total", ("completed",)] == found["agentspace_turns_total", ("failed",)] == 1
    classes = ("uncached_input", "cache_write_5m", "cache_write_1h", "cache_read", "output")
    assert [found["agentspace_tokens_total", (name,)] for name in classes] == [2, 4, 6, 8, 10]
    assert (found["agentspace_turns_active", ()], found["agentspace_sessions_live", ()]) == (2, 3)


def test_every_terminal_state_has_a_label() -> None:
    metrics = Metrics(lambda: 0, lambda: 0)
    for state in turn_pb2.TurnState.values():
        metrics.turn_ended(a_turn(state))
    assert len([key for key in samples(metrics) if key[0] == "agentspace_turns_total"]) == len(
        turn_pb2.TurnState.keys()
    )
