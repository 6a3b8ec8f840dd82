"""The catalog finds models by rule and prices them by the table, to the pico-dollar; it never guesses."""

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError
from gateway.domain.price import charge
from gateway.domain.usage import TokenCounts
from gateway.providers.catalog import BuiltInCatalog
from gateway.usecases.ports import Catalog

TODAY = "2026-11-23"
ONE_OF_EACH = TokenCounts(uncached_input=1, cache_write_5m=1, cache_write_1h=1, cache_read=1, output=1)
CLASSES = ("uncached_input", "output", "cache_write_5m", "cache_write_1h", "cache_read")
MILLION = 10**6
DOLLAR = 10**12

# Dollars per million tokens: input, output, cache write for 5 minutes and for an hour, cache read.
LISTED = {
    "claude-fable-5-1": (10, 50, 12.5, 20, 0.25),
    "claude-mythos-5-1": (10, 50, 12.5, 20, 0.25),
    "claude-fable-5": (10, 50, 12.5, 20, 1),
    "claude-mythos-5": (10, 50, 12.5, 20, 1),
    "claude-opus-5-5": (4, 20, 5, 8, 0.2),
    "claude-opus-5": (5, 25, 6.25, 10, 0.5),
    "claude-opus-4-8": (5, 25, 6.25, 10, 0.5),
    "claude-opus-4-7": (5, 25, 6.25, 10, 0.5),
    "claude-opus-4-6": (5, 25, 6.25, 10, 0.5),
    "claude-opus-4-5": (5, 25, 6.25, 10, 0.5),
    "claude-sonnet-5-5": (2, 10, 2.5, 4, 0.1),
    "claude-sonnet-5": (2, 10, 2.5, 4, 0.2),
    "claude-sonnet-4-6": (3, 15, 3.75, 6, 0.3),
    "claude-sonnet-4-5": (3, 15, 3.75, 6, 0.3),
    "claude-haiku-4-5": (1, 5, 1.25, 2, 0.1),
}


def dollars(name: str, counts: TokenCounts, day: str = TODAY) -> float:
    """What the counts cost; the model must be priced."""
    catalog = BuiltInCatalog()
    charged = charge(counts, catalog.find(name).prices, day, catalog.price_version)
    assert charged.priced
    return charged.total_pico / DOLLAR


def test_it_is_a_catalog_of_a_day() -> None:
    catalog: Catalog = BuiltInCatalog()
    assert catalog.price_version == "2026-11-20"
    assert catalog.providers == ("anthropic",)


@pytest.mark.parametrize(("name", "prices"), LISTED.items())
def test_list_prices(name: str, prices: tuple[float, ...]) -> None:
    for token_class, price in zip(CLASSES, prices, strict=True):
        # Far below the band of long prompts.
        assert dollars(name, TokenCounts(**{token_class: 1000})) * 1000 == price
        assert dollars(f"{name}-20250929", TokenCounts(**{token_class: 1000})) * 1000 == price


def test_haiku_5_5_costs_more_for_long_prompts_and_the_cache_counts() -> None:
    assert dollars("claude-haiku-5-5", TokenCounts(uncached_input=100_000, output=MILLION)) == 0.01 + 0.5
    assert dollars("claude-haiku-5-5", TokenCounts(uncached_input=1, cache_read=100_000)) == 0.0000005 + 0.005
    assert dollars("claude-haiku-5-5", TokenCounts(cache_write_5m=200_000, cache_write_1h=200_000)) == 0.125 + 0.2
    assert dollars("claude-haiku-5-5", TokenCounts(uncached_input=200_000, output=MILLION)) == 0.1 + 2.5


def test_sonnet_5_5_reads_became_cheaper() -> None:
    assert dollars("claude-sonnet-5-5", TokenCounts(cache_read=MILLION), "2026-10-06") == 0.2
    assert dollars("claude-sonnet-5-5", TokenCounts(cache_read=MILLION), "2026-10-07") == 0.1


@pytest.mark.parametrize(
    "name",
    ["claude-fable-5-2", "claude-sonnet-6", "claude-sonnet-4-5-v2", "claude-sonnet-4-5-2025", "claude-opus-5-5-fast"],
)
def test_an_unknown_claude_is_found_and_unpriced(name: str) -> None:
    model = BuiltInCatalog().find(name)
    assert (model.provider, model.upstream_name, model.prices) == ("anthropic", name, ())
    assert not charge(ONE_OF_EACH, model.prices, TODAY, "x").priced


@pytest.mark.parametrize(
    ("name", "provider", "upstream_name"),
    [
        ("local/smollm2", "local", "smollm2"),
        ("local/org/model:7b", "local", "org/model:7b"),
        ("scripted/echo?delay=20ms", "scripted", "echo?delay=20ms"),
    ],
)
def test_local_and_scripted_are_known_to_cost_nothing(name: str, provider: str, upstream_name: str) -> None:
    model = BuiltInCatalog().find(name)
    assert (model.name, model.provider, model.upstream_name) == (name, provider, upstream_name)
    assert dollars(name, ONE_OF_EACH, "2020-01-01") == 0


@pytest.mark.parametrize(
    "name",
    [
        "", "gpt-4", "claude", "claude-", "Claude-opus-5", "claude-opus-5\n", "claude-opus 5", "claude-opus-5/x",
        "anthropic/claude-opus-5", "local/", "local", "local/a\x00b", "scripted/", "scripted/nothing", "x" * 100_000,
        "claude-" + "5" * 300,
    ],
)  # fmt: skip
def test_nothing_else_is_found(name: str) -> None:
    with pytest.raises(GatewayError) as caught:
        BuiltInCatalog().find(name)
    assert caught.value.reason == error_pb2.ERROR_REASON_MODEL_NOT_FOUND
    assert caught.value.metadata["model"][:200].isprintable()
    assert len(caught.value.metadata["model"]) <= 200
