"""The context inspector: sections, sizes, and sums that are sums."""

from dataclasses import replace

import pytest

from gateway.domain.price import Price
from gateway.providers.catalog import BuiltInCatalog
from gateway.storage.database import Database
from gateway.usecases.inspect_context import InspectContext
from gateway.usecases.manage_sessions import ManageSessions, SessionChange
from gateway.usecases.ports import Model
from tests.gateway.usecases.rooms import StillClock, Talk, refused

PRICES = (
    Price("2026-01-01", 3_000_000, 15_000_000, 0, 0, 0),
    Price("2026-01-01", 6_000_000, 22_500_000, 0, 0, 0, from_prompt_tokens=100),
)


class Words:
    """A token is a word: easy to count by hand."""

    def estimate(self, text: str) -> tuple[int, str]:
        return len(text.split()), "estimate:words"


class PricedCatalog(BuiltInCatalog):
    def find(self, name: str) -> Model:
        return replace(super().find(name), prices=PRICES if name == "scripted/echo" else ())


@pytest.fixture
def inspect_context(store: Database, clock: StillClock) -> InspectContext:
    return InspectContext(store=store, catalog=PricedCatalog(), estimator=Words(), clock=clock)


async def test_every_section_is_there_and_measured(
    sessions: ManageSessions, inspect_context: InspectContext, store: Database, talk: Talk
) -> None:
    made = await sessions.create("", SessionChange(system_prompt="Sei brav, süß"))
    await store.write(lambda tx: talk(tx, made, "a lost?"))
    context = await inspect_context(made.key)
    assert context.model == "scripted/echo"
    assert [(s.name, s.byte_count, s.token_estimate, s.cost_pico) for s in context.sections] == [
        ("system_prompt", 15, 3, 9_000_000),
        ("history", 21, 4, 12_000_000),
        ("memory", 0, 0, 0),
        ("skills", 0, 0, 0),
        ("tools", 0, 0, 0),
    ]
    assert context.sections[1].content == "user: a\n\nassistant: A"
    assert {section.token_method for section in context.sections} == {"estimate:words"}
    assert (context.byte_count, context.token_estimate, context.cost_pico) == (36, 7, 21_000_000)


async def test_the_whole_prompt_decides_the_price_of_each_section(
    sessions: ManageSessions, inspect_context: InspectContext, store: Database, talk: Talk
) -> None:
    made = await sessions.create("", SessionChange(system_prompt="word " * 99))
    await store.write(lambda tx: talk(tx, made, "a"))
    context = await inspect_context(made.session_id)
    assert [section.cost_pico for section in context.sections[:2]] == [99 * 6_000_000, 4 * 6_000_000]
    assert context.cost_pico == context.token_estimate * 6_000_000


async def test_without_a_price_there_is_no_cost(sessions: ManageSessions, inspect_context: InspectContext) -> None:
    made = await sessions.create("", SessionChange(model="scripted/count", system_prompt="Be kind."))
    context = await inspect_context(made.session_id)
    assert {section.cost_pico for section in context.sections} == {None}
    assert context.cost_pico is None


async def test_a_model_that_is_gone_leaves_the_context_readable(
    sessions: ManageSessions, inspect_context: InspectContext, store: Database
) -> None:
    made = await sessions.create("", SessionChange(system_prompt="Be kind."))
    await store.write(lambda tx: tx.sessions.update(made._replace(model="gone/model")))
    context = await inspect_context(made.session_id)
    assert (context.model, context.token_estimate, context.cost_pico) == ("gone/model", 2, None)


async def test_a_session_that_is_not_there_is_not_found(inspect_context: InspectContext) -> None:
    await refused(inspect_context("V1StGXR8_Z5jdHi6B-myT"), "SESSION_NOT_FOUND")
