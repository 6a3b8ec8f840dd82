"""What a scripted model does, read from its name: `SHAPE?parameter=value&...`. docs/scripted.md lists them. Called by
catalog (is there such a model?) and by scripted (which plays it).
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError

FAULTS = ("overloaded", "rate_limited", "truncated", "auth", "rejected", "unreachable", "hang")

_PARAMETERS = {
    "echo": {"first", "delay"},
    "story": {"first", "delay"},
    "count": {"first", "delay", "n", "size"},
    "think": {"first", "delay", "n"},
    "tool": {"first", "delay"},
    "fail": {"first", "delay", "after", "with", "retry"},
}
_DURATION = re.compile(r"(\d{1,7})(ms|s)")
_NUMBER = re.compile(r"\d{1,7}")
_LONGEST_SECONDS = 3600.0
_LARGEST = {"n": 1_000_000, "size": 65_536, "after": 1_000_000}


@dataclass(frozen=True, slots=True)
class Script:
    """`first` and `delay` are seconds, before the first delta and before each further one. `n` counts deltas; `size` is
    characters a delta, 0 for as many as it takes. `fault` comes after `after` deltas, advising `retry_after_ms`."""

    shape: str
    first: float = 0.0
    delay: float = 0.0
    n: int = 20
    size: int = 0
    after: int = 0
    fault: str = ""
    retry_after_ms: int = 0


def parse_script(name: str) -> Script:
    """The script of the model `scripted/{name}`. Raises MODEL_NOT_FOUND where shape, parameter or value is unknown."""
    shape, _, query = name.partition("?")
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=8)
        values = dict(given)
        if shape not in _PARAMETERS or len(values) < len(given) or not values.keys() <= _PARAMETERS[shape]:
            raise ValueError
        return Script(
            shape,
            first=_seconds(values.get("first", "0s")),
            delay=_seconds(values.get("delay", "0s")),
            n=_number("n", values.get("n", "20")),
            size=_number("size", values.get("size", "0")),
            after=_number("after", values.get("after", "0")),
            fault=_fault(values.get("with", "overloaded")) if shape == "fail" else "",
            retry_after_ms=round(_seconds(values.get("retry", "0s")) * 1000),
        )
    except ValueError:
        model = f"scripted/{name}"
        raise GatewayError(
            error_pb2.ERROR_REASON_MODEL_NOT_FOUND,
            f"there is no scripted model {model!r}; see docs/scripted.md",
            metadata={"model": model},
        ) from None


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) / (1000 if match[2] == "ms" else 1) if match else -1.0
    if not 0 <= seconds <= _LONGEST_SECONDS:
        raise ValueError
    return seconds


def _number(parameter: str, text: str) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > _LARGEST[parameter]:
        raise ValueError
    return int(text)


def _fault(text: str) -> str:
    if text not in FAULTS:
        raise ValueError
    return text
