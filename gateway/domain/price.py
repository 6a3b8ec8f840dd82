"""Prices and the arithmetic of cost: integers only, one row per model, prompt-length band and day it took effect.

List prices are written in dollars per million tokens; a dollar per million tokens is 10^6 pico-dollars per token.
"""

from dataclasses import dataclass

from gateway.domain.usage import Charge, TokenCounts


@dataclass(frozen=True, slots=True)
class Price:
    """Pico-dollars per token of each class, for prompts of at least `from_prompt_tokens` (all input classes together),
    from the day `effective_from` (ISO date) on."""

    effective_from: str
    uncached_input: int
    output: int
    cache_write_5m: int
    cache_write_1h: int
    cache_read: int
    from_prompt_tokens: int = 0


def price_at(prices: tuple[Price, ...], day: str, prompt_tokens: int) -> Price | None:
    """The row for a prompt of that many tokens on `day` (ISO date); None when none applies.

    Of the rows in effect the newest wins, and of those the highest band the prompt reaches.
    """
    applicable = [p for p in prices if p.effective_from <= day and p.from_prompt_tokens <= prompt_tokens]
    return max(applicable, key=lambda p: (p.effective_from, p.from_prompt_tokens), default=None)


def charge(counts: TokenCounts, prices: tuple[Price, ...], day: str, version: str) -> Charge:
    """What `counts` cost on `day` (ISO date) by the price list `version`; unpriced when no row applies."""
    price = price_at(prices, day, counts.input)
    if price is None:
        return Charge(priced=False)
    return Charge(
        input_pico=counts.uncached_input * price.uncached_input
        + counts.cache_write_5m * price.cache_write_5m
        + counts.cache_write_1h * price.cache_write_1h
        + counts.cache_read * price.cache_read,
        output_pico=counts.output * price.output,
        priced=True,
        price_version=version,
    )
