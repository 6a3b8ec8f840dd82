"""Counts that arrive in pieces."""

from typing import Any

import pytest

from gateway.domain.price import charge
from gateway.domain.usage import TokenCounts
from gateway.providers.catalog import BuiltInCatalog
from gateway.providers.token_tally import MOST_TOKENS, TokenTally


def tally(*usages: dict[str, Any]) -> TokenCounts:
    kept = TokenTally()
    return [kept.add(usage) for usage in usages][-1]


def test_every_class() -> None:
    usage = {
        "input_tokens": 1,
        "cache_creation_input_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3},
        "cache_read_input_tokens": 4,
        "output_tokens": 6,
        "output_tokens_details": {"thinking_tokens": 5},
        "server_tool_use": {"web_search_requests": 7, "web_fetch_requests": 8},
        "service_tier": "standard",
    }
    assert tally(usage) == TokenCounts(1, 2, 3, 4, 6, 5, 15)


def test_without_a_split_writes_last_five_minutes() -> None:
    assert tally({"cache_creation_input_tokens": 9}) == TokenCounts(cache_write_5m=9)


def test_a_split_alone_is_enough() -> None:
    split = {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3}
    assert tally({"cache_creation": split}) == TokenCounts(cache_write_5m=2, cache_write_1h=3)


def test_what_a_split_of_the_first_iteration_leaves_out_is_counted() -> None:
    split = {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40}
    counts = tally({"cache_creation_input_tokens": 100, "cache_creation": split}, {"cache_creation_input_tokens": 400})
    assert counts == TokenCounts(cache_write_5m=360, cache_write_1h=40)


@pytest.mark.parametrize("later", [{}, {"input_tokens": None}, {"input_tokens": "9"}, {"input_tokens": -1}])
def test_what_is_not_told_stays(later: dict[str, Any]) -> None:
    assert tally({"input_tokens": 25, "output_tokens": 1}, {"output_tokens": 40, **later}) == TokenCounts(25, output=40)


def test_zero_is_a_number() -> None:
    assert tally({"input_tokens": 25, "cache_read_input_tokens": 3}, {"cache_read_input_tokens": 0}) == TokenCounts(25)


@pytest.mark.parametrize("odd", [{"cache_creation": 5}, {"output_tokens_details": None}, {"output_tokens": True}])
def test_odd_values_are_passed_over(odd: dict[str, Any]) -> None:
    assert tally({"output_tokens": 2}, odd) == TokenCounts(output=2)


ABSURD = [MOST_TOKENS + 1, 10**13, 2**63, 2**64, -1, -(2**63), 1.5, 1e18, float("nan"), "7", True, False, None, [1], {}]


@pytest.mark.parametrize("absurd", ABSURD)
def test_absurd_counts_are_passed_over(absurd: Any) -> None:
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    inner = {
        "cache_creation": {"ephemeral_5m_input_tokens": absurd, "ephemeral_1h_input_tokens": absurd},
        "output_tokens_details": {"thinking_tokens": absurd},
        "server_tool_use": {"web_search_requests": absurd, "web_fetch_requests": absurd},
    }
    everything = {**dict.fromkeys(names, absurd), **inner}
    assert tally(everything) == TokenCounts()
    assert tally({"input_tokens": 3, "output_tokens": 2}, everything) == TokenCounts(3, output=2)


def test_dozens_of_the_largest_answers_are_priced_within_64_bits() -> None:
    split = {"ephemeral_5m_input_tokens": MOST_TOKENS, "ephemeral_1h_input_tokens": MOST_TOKENS}
    names = ("input_tokens", "cache_read_input_tokens", "output_tokens")
    counts = tally({**dict.fromkeys(names, MOST_TOKENS), "cache_creation": split})
    assert (counts.output, counts.input) == (MOST_TOKENS, 4 * MOST_TOKENS)
    dearest = BuiltInCatalog().find("claude-fable-5").prices
    charged = charge(counts, dearest, "2026-11-23", "")
    assert charged.input_pico + charged.output_pico < 2**63 // 50
