"""What the bridge tells operators: log lines as JSON on stderr, and its own metrics.

Called by app.py and http.py.
"""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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
        line.update({key: value for key, value in vars(record).items() if key not in STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def quiet_bad_requests(record: logging.LogRecord) -> bool:
    """Tell whether a record of aiohttp's server may be written.

    It logs malformed requests with a traceback and the start of the offending header, which may be a token.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def set_up_logging() -> None:
    """Send everything from level INFO to stderr as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    handler.addFilter(quiet_bad_requests)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class Metrics(Collector):
    """The bridge's metrics, read from their owners when somebody asks. sockets, received, sent: give the numbers."""

    def __init__(self, sockets: Callable[[], int], received: Callable[[], int], sent: Callable[[], int]) -> None:
        self._sockets = sockets
        self._received = received
        self._sent = sent
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Give the present numbers."""
        yield GaugeMetricFamily("agentspace_bridge_connections", "Open WebSockets.", self._sockets())
        frames = CounterMetricFamily("agentspace_bridge_frames", "Text frames by direction.", labels=["direction"])
        frames.add_metric(["received"], self._received())
        frames.add_metric(["sent"], self._sent())
        yield frames

    def text(self) -> str:
        """Write them in Prometheus' text format."""
        return generate_latest(self._registry).decode()
