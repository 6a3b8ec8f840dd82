"""What the gateway tells operators: log lines as JSON on stderr, and metrics. Called by app and __main__.

Metrics have bounded labels only: methods and states are of the contract, models and sessions are not in them.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from agentspace.v1.turn_pb2 import TurnState
from gateway.domain.turn import Turn
from gateway.rpc.methods import Method

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_TOKENS = ("uncached_input", "cache_write_5m", "cache_write_1h", "cache_read", "output")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and what the call gave as extra."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up_logging() -> None:
    """Send everything from level INFO to stderr as JSON; of the migrations, from WARNING."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)


class Metrics:
    """The gateway's metrics."""

    def __init__(self, running: Callable[[], int], live: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "agentspace_calls", "Calls by method and outcome.", ["method", "code"], registry=self._registry
        )
        self._turns = Counter("agentspace_turns", "Turns that ended, by state.", ["state"], registry=self._registry)
        self._tokens = Counter("agentspace_tokens", "Tokens billed, by class.", ["class"], registry=self._registry)
        Gauge("agentspace_turns_active", "Turns running or waiting.", registry=self._registry).set_function(running)
        Gauge("agentspace_sessions_live", "Sessions in memory.", registry=self._registry).set_function(live)

        # Looking a child up by its labels costs more than counting.
        self._calls_by: dict[tuple[str, str], Counter] = {}
        self._tokens_by = {name: self._tokens.labels(name) for name in _TOKENS}

    def called(self, method: Method, code: str) -> None:
        """A call ended with "OK" or an error reason."""
        labels = method.name, code
        child = self._calls_by.get(labels)
        if child is None:
            child = self._calls_by[labels] = self._calls.labels(*labels)
        child.inc()

    def turn_ended(self, turn: Turn) -> None:
        """A turn ended."""
        self._turns.labels(TurnState.Name(turn.state).removeprefix("TURN_STATE_").lower()).inc()
        counts = turn.usage.counts
        for name, child in self._tokens_by.items():
            if number := getattr(counts, name):
                child.inc(number)

    def text(self) -> str:
        """Prometheus' text format."""
        return generate_latest(self._registry).decode()
