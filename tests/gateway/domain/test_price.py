"""The arithmetic of cost."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.price import Price, charge, price_at
from gateway.domain.usage import Charge, TokenCounts

PRICE = Price("2026-01-01", 3_000_000, 15_000_000, 3_750_000, 6_000_000, 300_000)
LONG = Price("2026-01-01", 6_000_000, 22_500_000, 7_500_000, 12_000_000, 600_000, from_prompt_tokens=200_000)
NEWER = Price("2026-06-01", 2_000_000, 10_000_000, 2_500_000, 4_000_000, 200_000)


def test_every_class_has_its_own_price() -> None:
    counts = TokenCounts(1, 10, 100, 1000, 10_000, 9_999, 5)
    assert charge(counts, (PRICE,), "2026-02-01", "v1") == Charge(
        3_000_000 + 37_500_000 + 600_000_000 + 300_000_000, 150_000_000_000, True, "v1"
    )


def test_without_a_row_in_effect_it_is_unpriced_and_not_free() -> None:
    for prices in ((), (NEWER,)):
        assert charge(TokenCounts(1), prices, "2026-05-31", "v1") == Charge(priced=False)


def test_a_row_holds_from_its_day_on() -> None:
    assert price_at((NEWER, PRICE), "2026-05-31", 0) is PRICE
    assert price_at((PRICE, NEWER), "2026-06-01", 0) is NEWER


def test_the_whole_prompt_decides_the_band() -> None:
    prices = (LONG, PRICE)
    assert price_at(prices, "2026-02-01", 199_999) is PRICE
    assert price_at(prices, "2026-02-01", 200_000) is LONG
    cached = TokenCounts(uncached_input=1, cache_read=199_999)
    assert charge(cached, prices, "2026-02-01", "v1").input_pico == 6_000_000 + 199_999 * 600_000


@given(st.builds(TokenCounts, *[st.integers(0, 10**6)] * 7), st.builds(TokenCounts, *[st.integers(0, 10**6)] * 7))
def test_within_a_band_cost_adds_up_to_the_last_pico(a: TokenCounts, b: TokenCounts) -> None:
    one, two, both = (charge(counts, (PRICE,), "2026-02-01", "v1") for counts in (a, b, a.plus(b)))
    assert both.total_pico == one.total_pico + two.total_pico
