"""What the gateway tells operators: log lines as JSON on stderr, and metrics. Called by app and __main__.

Metrics have bounded labels only: methods and states are of the contract, models and sessions are not in them.
"""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

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


class Metrics(Collector):
    """The gateway's metrics: plain numbers, put into Prometheus' form when somebody asks. `running` and `live` give how
    many turns and sessions there are."""

    def __init__(self, running: Callable[[], int], live: Callable[[], int]) -> None:
        self._running = running
        self._live = live
        self._calls: dict[tuple[str, str], int] = {}
        self._turns: dict[TurnState.ValueType, int] = {}
        self._tokens = dict.fromkeys(_TOKENS, 0)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def called(self, method: Method, code: str) -> None:
        """A call ended with "OK" or an error reason."""
        labels = method.name, code
        self._calls[labels] = self._calls.get(labels, 0) + 1

    def turn_ended(self, turn: Turn) -> None:
        """A turn ended."""
        self._turns[turn.state] = self._turns.get(turn.state, 0) + 1
        counts = turn.usage.counts
        for name in _TOKENS:
            self._tokens[name] += getattr(counts, name)

    def collect(self) -> Iterator[Metric]:
        """Give the present numbers."""
        calls = CounterMetricFamily("agentspace_calls", "Calls by method and outcome.", labels=["method", "code"])
        for labels, number in self._calls.items():
            calls.add_metric(labels, number)
        turns = CounterMetricFamily("agentspace_turns", "Turns that ended, by state.", labels=["state"])
        for state, number in self._turns.items():
            turns.add_metric([TurnState.Name(state).removeprefix("TURN_STATE_").lower()], number)
        tokens = CounterMetricFamily("agentspace_tokens", "Tokens billed, by class.", labels=["class"])
        for name, number in self._tokens.items():
            tokens.add_metric([name], number)
        yield from (calls, turns, tokens)
        yield GaugeMetricFamily("agentspace_turns_active", "Turns running or waiting.", self._running())
        yield GaugeMetricFamily("agentspace_sessions_live", "Sessions in memory.", self._live())

    def text(self) -> str:
        """Prometheus' text format."""
        return generate_latest(self._registry).decode()
