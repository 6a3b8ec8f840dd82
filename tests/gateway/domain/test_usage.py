"""Token classes and the sums of attempts."""

from hypothesis import given
from hypothesis import strategies as st

from agentspace.v1 import usage_pb2
from gateway.domain.usage import Charge, TokenCounts, TurnUsage, UsageRecord

counts = st.builds(TokenCounts, *[st.integers(0, 10**9)] * 7)


def record(tokens: TokenCounts, charge: Charge, status: int = usage_pb2.USAGE_STATUS_FINAL) -> UsageRecord:
    return UsageRecord("s", "t", 1, "m", "p", tokens, charge, status, "completed", 1)


@given(counts, counts)
def test_counts_add_class_by_class_and_totals_with_them(a: TokenCounts, b: TokenCounts) -> None:
    both = a.plus(b)
    assert both.input == a.input + b.input
    assert both.total == both.input + both.output == a.total + b.total
    assert both.thinking == a.thinking + b.thinking
    assert a.plus(TokenCounts()) == a


def test_a_turns_usage_is_the_sum_of_its_attempts() -> None:
    first = record(TokenCounts(uncached_input=10, output=2), Charge(100, 20, True, "v1"))
    second = record(TokenCounts(cache_read=5, output=3), Charge(5, 30, True, "v1"))
    usage = TurnUsage().plus(first).plus(second)
    assert usage.counts == TokenCounts(uncached_input=10, cache_read=5, output=5)
    assert usage.charge == Charge(105, 50, True, "v1")
    assert usage.charge.total_pico == 155
    assert usage.attempts == 2


def test_the_worst_attempt_decides_how_good_the_numbers_are() -> None:
    good = record(TokenCounts(), Charge())
    estimated = good._replace(status=usage_pb2.USAGE_STATUS_ESTIMATED)
    for order in ((good, estimated), (estimated, good)):
        assert TurnUsage().plus(order[0]).plus(order[1]).status == usage_pb2.USAGE_STATUS_ESTIMATED


def test_one_unpriced_attempt_leaves_the_turn_unpriced_but_keeps_what_is_known() -> None:
    usage = TurnUsage().plus(record(TokenCounts(), Charge(7, 3, True, "v1")))
    usage = usage.plus(record(TokenCounts(), Charge(priced=False)))
    assert not usage.charge.priced
    assert usage.charge.total_pico == 10


def test_two_price_lists_leave_none_named() -> None:
    usage = TurnUsage()
    for version in ("v1", "v2", "v1"):
        usage = usage.plus(record(TokenCounts(), Charge(1, 1, True, version)))
    assert usage.charge.price_version == ""
