"""What every store must do with sessions."""

import pytest

from gateway.domain.error import GatewayError
from gateway.usecases.ports import PROMPTS_BYTES, Store, Transaction
from tests.gateway.storage.samples import session

FULL = session(
    "full",
    1,
    agent_id="tester",
    model="claude",
    updated_ms=2,
    title="t\0ïtle",
    system_prompt="be brief",
    message_count=3,
    revision=4,
    epoch=5,
    last_seq=2**53,
    deleted_ms=7,
    forked_from="other",
    generation=8,
)


async def gives_back_every_field(store: Store) -> None:
    await store.write(lambda tx: tx.sessions.insert(FULL))
    assert await store.read(lambda tx: tx.sessions.get("full")) == FULL
    assert await store.read(lambda tx: tx.sessions.get("none")) is None


async def update_leaves_counters_and_positions_alone(store: Store) -> None:
    await store.write(lambda tx: tx.sessions.insert(FULL))
    changed = FULL._replace(
        agent_id="a",
        model="b",
        created_ms=11,
        updated_ms=12,
        title="c",
        system_prompt="d",
        revision=13,
        deleted_ms=14,
        forked_from="e",
    )
    await store.write(
        lambda tx: tx.sessions.update(changed._replace(message_count=0, epoch=0, last_seq=0, generation=0))
    )
    assert await store.read(lambda tx: tx.sessions.get("full")) == changed


async def touch_position_and_generation_write_their_own_fields(store: Store) -> None:
    await store.write(lambda tx: tx.sessions.insert(FULL))
    await store.write(lambda tx: tx.sessions.touch("full", 20))
    await store.write(lambda tx: tx.sessions.set_position("full", 21, 22))
    expected = FULL._replace(updated_ms=20, message_count=4, epoch=21, last_seq=22)
    assert await store.read(lambda tx: tx.sessions.get("full")) == expected
    await store.write(lambda tx: tx.sessions.touch("full", 26, (27, 28)))
    expected = FULL._replace(updated_ms=26, message_count=5, epoch=27, last_seq=28)
    assert await store.read(lambda tx: tx.sessions.get("full")) == expected
    await store.write(lambda tx: tx.sessions.set_generation("full", 23, 24, 25))
    expected = expected._replace(generation=23, message_count=24, updated_ms=25)
    assert await store.read(lambda tx: tx.sessions.get("full")) == expected


async def a_session_that_is_not_there_cannot_change(store: Store) -> None:
    with pytest.raises(GatewayError, match="there is no session 'none'"):
        await store.write(lambda tx: tx.sessions.touch("none", 1))


async def pages_newest_first_without_a_gap_or_a_repeat(store: Store) -> None:
    def fill(tx) -> None:  # type: ignore[no-untyped-def]
        for number in range(40):
            tx.sessions.insert(
                session(
                    f"s{number:02}",
                    number // 3,  # several share a millisecond
                    agent_id="even" if number % 2 == 0 else "odd",
                    deleted_ms=9 if number % 5 == 0 else 0,
                )
            )

    await store.write(fill)
    order = [f"s{number:02}" for number in reversed(range(40))]
    live = [name for name in order if int(name[1:]) % 5]
    gone = [name for name in order if name not in live]
    for agent, deleted, expected in (
        ("", True, gone),
        ("", False, live),
        ("even", False, [name for name in live if int(name[1:]) % 2 == 0]),
        ("even", True, [name for name in gone if int(name[1:]) % 2 == 0]),
        ("nobody", True, []),
    ):
        seen: list[str] = []
        after = None
        while True:
            page = await store.read(
                lambda tx, after=after, agent=agent, deleted=deleted: tx.sessions.page(
                    after=after, limit=7, agent_id=agent, deleted=deleted
                )[0]
            )
            if not page:
                break
            seen += [found.session_id for found in page]
            after = (page[-1].created_ms, page[-1].session_id)
        assert seen == expected


async def a_page_ends_with_the_session_whose_prompt_makes_it_large(store: Store) -> None:
    def fill(tx: Transaction) -> None:
        for number in range(6):
            tx.sessions.insert(
                session(f"s{number}", created_ms=number, deleted_ms=number % 2, system_prompt="x" * PROMPTS_BYTES)
            )

    await store.write(fill)
    for deleted, order in ((True, ["s5", "s3", "s1"]), (False, ["s4", "s2", "s0"])):
        seen, after, more = [], None, True
        while more:
            found, more = await store.read(
                lambda tx, after=after, deleted=deleted: tx.sessions.page(
                    after=after, limit=50, agent_id="", deleted=deleted
                )
            )
            assert len(found) == 1
            seen.append(found[0].session_id)
            after = (found[0].created_ms, found[0].session_id)
        assert seen == order
        found, more = await store.read(
            lambda tx, deleted=deleted: tx.sessions.page(
                after=None, limit=50, agent_id="", deleted=deleted, prompts=False
            )
        )
        assert ([(each.session_id, each.system_prompt) for each in found], more) == (
            [(name, "") for name in order],
            False,
        )
