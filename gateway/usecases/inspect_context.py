"""InspectContext: shows what the next message of a session would be sent with. Called by rpc's context service."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from agentspace.v1 import error_pb2
from gateway.domain.context import Section, sections
from gateway.domain.error import GatewayError
from gateway.domain.ids import resolve_session
from gateway.domain.price import Price, price_at
from gateway.domain.session import Session
from gateway.usecases.find_session import living_session
from gateway.usecases.ports import Catalog, Clock, Estimator, Store, Transaction


@dataclass(frozen=True, slots=True)
class MeasuredSection:
    """A section and its size. `cost_pico`: its tokens as uncached input, in pico-dollars; None without a price."""

    name: str
    content: str
    byte_count: int
    token_estimate: int
    token_method: str
    cost_pico: int | None


@dataclass(frozen=True, slots=True)
class Context:
    """All sections, the empty ones too, in the order they are sent."""

    model: str
    sections: tuple[MeasuredSection, ...]

    @property
    def byte_count(self) -> int:
        """UTF-8 bytes of all sections."""
        return sum(section.byte_count for section in self.sections)

    @property
    def token_estimate(self) -> int:
        """Tokens of all sections."""
        return sum(section.token_estimate for section in self.sections)

    @property
    def cost_pico(self) -> int | None:
        """Pico-dollars of all sections; None when the model has no known price."""
        costs = [section.cost_pico for section in self.sections if section.cost_pico is not None]
        return sum(costs) if len(costs) == len(self.sections) else None


class InspectContext:
    """Measures contexts."""

    def __init__(self, *, store: Store, catalog: Catalog, estimator: Estimator, clock: Clock) -> None:
        self._store = store
        self._catalog = catalog
        self._estimator = estimator
        self._clock = clock

    async def __call__(self, reference: str) -> Context:
        """The context as it stands. Raises SESSION_NOT_FOUND."""
        session_id = resolve_session(reference)

        def work(tx: Transaction) -> tuple[Session, list[Section]]:
            session = living_session(tx, session_id)
            return session, sections(session.system_prompt, tx.messages.history(session_id))

        session, parts = await self._store.read(work)
        # A long history takes a while to count.
        estimates = await asyncio.to_thread(lambda: [self._estimator.estimate(part.content) for part in parts])
        price = self._price(session.model, sum(tokens for tokens, _ in estimates))
        return Context(
            session.model,
            tuple(
                MeasuredSection(
                    part.name,
                    part.content,
                    len(part.content.encode()),
                    tokens,
                    method,
                    None if price is None else tokens * price.uncached_input,
                )
                for part, (tokens, method) in zip(parts, estimates, strict=True)
            ),
        )

    def _price(self, model: str, prompt_tokens: int) -> Price | None:
        """Today's price for the whole prompt, since its length decides the band."""
        try:
            prices = self._catalog.find(model).prices
        except GatewayError as error:
            if error.reason != error_pb2.ERROR_REASON_MODEL_NOT_FOUND:
                raise
            return None  # no longer served: what it holds can still be looked at
        today = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).date().isoformat()
        return price_at(prices, today, prompt_tokens)
