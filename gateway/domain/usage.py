"""What an attempt used: token classes as providers bill them, and the ledger's row. Amounts are integer
pico-dollars."""

from typing import NamedTuple

from agentspace.v1 import usage_pb2
from agentspace.v1.usage_pb2 import UsageStatus


class TokenCounts(NamedTuple):
    """Tokens by class. The input classes exclude one another; `thinking` is part of `output`."""

    uncached_input: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0
    output: int = 0
    thinking: int = 0
    server_tool_requests: int = 0

    @property
    def input(self) -> int:
        """All input tokens."""
        return self.uncached_input + self.cache_write_5m + self.cache_write_1h + self.cache_read

    @property
    def total(self) -> int:
        """Input and output."""
        return self.input + self.output

    def plus(self, other: "TokenCounts") -> "TokenCounts":
        """The sums, class by class."""
        return TokenCounts(
            self.uncached_input + other.uncached_input,
            self.cache_write_5m + other.cache_write_5m,
            self.cache_write_1h + other.cache_write_1h,
            self.cache_read + other.cache_read,
            self.output + other.output,
            self.thinking + other.thinking,
            self.server_tool_requests + other.server_tool_requests,
        )


class Charge(NamedTuple):
    """What tokens cost, in pico-dollars. `priced` False: the price is not known and the amounts are 0."""

    input_pico: int = 0
    output_pico: int = 0
    priced: bool = True
    price_version: str = ""

    @property
    def total_pico(self) -> int:
        """Input and output."""
        return self.input_pico + self.output_pico


class UsageRecord(NamedTuple):
    """One upstream attempt: a row of the ledger, written once. `created_ms` is Unix milliseconds."""

    session_id: str
    turn_id: str
    attempt: int
    model: str
    provider: str
    counts: TokenCounts
    charge: Charge
    status: UsageStatus.ValueType
    outcome: str
    created_ms: int
    record_id: int = 0


class ModelTotal(NamedTuple):
    """Sums over one model's rows; `total_pico` leaves out the `unpriced` rows."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_pico: int = 0
    requests: int = 0
    unpriced: int = 0


class TurnUsage(NamedTuple):
    """A turn's attempts together."""

    counts: TokenCounts = TokenCounts()
    charge: Charge = Charge()
    status: UsageStatus.ValueType = usage_pb2.USAGE_STATUS_FINAL
    attempts: int = 0

    def plus(self, record: UsageRecord) -> "TurnUsage":
        """With one more attempt."""
        if not self.attempts:
            return TurnUsage(record.counts, record.charge, record.status, 1)
        new = record.charge.price_version
        same_list = new in (self.charge.price_version, "")
        return TurnUsage(
            self.counts.plus(record.counts),
            Charge(
                self.charge.input_pico + record.charge.input_pico,
                self.charge.output_pico + record.charge.output_pico,
                self.charge.priced and record.charge.priced,
                (new or self.charge.price_version) if same_list else "",
            ),
            max(self.status, record.status),
            self.attempts + 1,
        )
