"""Token counts as the Messages API tells them, piece by piece: what is told later replaces what was known, what is not
told does not. Used by messages_stream.
"""

from typing import Any

from gateway.domain.usage import TokenCounts

MOST_TOKENS = 10**9
"""A larger count is no count and is passed over. It is a thousand times what any context holds, and the price in
pico-dollars of an answer that has this many of every class, and of dozens of them together, fits into 64 bits, which is
what the database and the contract have."""

_PARTS = ("cache_creation", "output_tokens_details", "server_tool_use")


class TokenTally:
    """The usage objects of one answer, put together. A zero is a number; an absent or null field is not, nor is
    anything but a whole number up to MOST_TOKENS."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def add(self, usage: dict[str, Any]) -> TokenCounts:
        """Take in a usage object; returns everything known."""
        known = self._known
        for name, n in usage.items():
            if _is_count(n):
                known[name] = n
            elif type(n) is dict and name in _PARTS:
                known.update({inner: m for inner, m in n.items() if _is_count(m)})
        write_5m = known.get("ephemeral_5m_input_tokens", 0)
        write_1h = known.get("ephemeral_1h_input_tokens", 0)
        # After server tools the total covers every iteration and the split only the first; what the split leaves out is
        # billed, so it is counted with the default class.
        written = known.get("cache_creation_input_tokens", write_5m + write_1h)
        write_1h = min(write_1h, written)
        return TokenCounts(
            uncached_input=known.get("input_tokens", 0),
            cache_write_5m=written - write_1h,
            cache_write_1h=write_1h,
            cache_read=known.get("cache_read_input_tokens", 0),
            output=known.get("output_tokens", 0),
            thinking=known.get("thinking_tokens", 0),
            server_tool_requests=known.get("web_search_requests", 0) + known.get("web_fetch_requests", 0),
        )

    def tells_all(self, last: dict[str, Any] | None) -> bool:
        """Whether the usage at the end of an answer told its output, and anything before it, or itself, the input."""
        told = last or {}
        return _is_count(told.get("output_tokens")) and "input_tokens" in self._known


def _is_count(n: Any) -> bool:
    return type(n) is int and 0 <= n <= MOST_TOKENS
