"""The catalog: which provider serves a model of a name, its limits and its prices. Implements the Catalog port for app.

Prices come from prices.json, a dated copy of the list prices; an empty `effective_from` is the price a model came out
with. A model that is not in it is unpriced: nothing is guessed from a similar name.
"""

import re
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Any

import orjson

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError
from gateway.domain.price import Price
from gateway.providers.script import parse_script
from gateway.usecases.ports import Model

CONTEXT_TOKENS = 200_000
MAX_OUTPUT_TOKENS = 8192
SCRIPTED_OUTPUT_TOKENS = 1_000_000

_CLAUDE = re.compile(r"claude-[a-z0-9][a-z0-9.-]*")
_DAY = re.compile(r"-20\d{6}\Z")
_LONGEST_NAME = 200
_FREE = (Price("", 0, 0, 0, 0, 0),)


class BuiltInCatalog:
    """`claude-*`, `local/*` and `scripted/*`. The last two cost nothing, which is a known price."""

    providers = ("anthropic",)

    def __init__(self) -> None:
        table = orjson.loads(files("gateway.providers").joinpath("prices.json").read_bytes())
        self.price_version: str = table["version"]
        self._prices = {model: tuple(map(_price, rows)) for model, rows in table["models"].items()}
        self._remembered = lru_cache(256)(self._find)

    def find(self, name: str) -> Model:
        """The model of that name; a dated one (`-YYYYMMDD`) costs what the undated one does. Raises MODEL_NOT_FOUND."""
        return self._remembered(name)

    def _find(self, name: str) -> Model:
        if len(name) <= _LONGEST_NAME and name.isprintable():
            provider, slash, rest = name.partition("/")
            if provider == "local" and rest:
                return Model(name, rest, "local", MAX_OUTPUT_TOKENS, CONTEXT_TOKENS, _FREE)
            if provider == "scripted" and slash:
                parse_script(rest)
                return Model(name, rest, "scripted", SCRIPTED_OUTPUT_TOKENS, CONTEXT_TOKENS, _FREE)
            if _CLAUDE.fullmatch(name):
                prices = self._prices.get(name) or self._prices.get(_DAY.sub("", name), ())
                return Model(name, name, "anthropic", MAX_OUTPUT_TOKENS, CONTEXT_TOKENS, prices)
        shown = "".join(c if c.isprintable() else "?" for c in name[:_LONGEST_NAME])
        raise GatewayError(
            error_pb2.ERROR_REASON_MODEL_NOT_FOUND,
            f"no provider serves a model {shown!r}",
            metadata={"model": shown},
        )


def _price(row: list[Any]) -> Price:
    effective_from, from_prompt_tokens, *dollars = row
    uncached_input, output, write_5m, write_1h, read = map(_pico_dollars_per_token, dollars)
    return Price(effective_from, uncached_input, output, write_5m, write_1h, read, from_prompt_tokens)


def _pico_dollars_per_token(dollars_per_million: str) -> int:
    exact = Decimal(dollars_per_million) * 10**6
    if exact != int(exact):
        raise ValueError(dollars_per_million)
    return int(exact)
