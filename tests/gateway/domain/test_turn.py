"""The turn's state table and positions."""

import pytest

from agentspace.v1 import turn_pb2
from gateway.domain.turn import IN_ORDER, NEXT, QUEUED, RUNNING, TurnPositions, is_terminal

STATES = [state for state in turn_pb2.TurnState.values() if state != turn_pb2.TURN_STATE_UNSPECIFIED]


def test_the_table_knows_every_state_of_the_contract() -> None:
    assert set(NEXT) == set(STATES)
    assert {follower for followers in NEXT.values() for follower in followers} <= set(STATES)


def test_all_but_queued_and_running_are_terminal() -> None:
    assert {state for state in STATES if not is_terminal(state)} == {QUEUED, RUNNING}


def test_every_terminal_state_can_be_reached_from_running_and_none_is_left() -> None:
    terminal = {state for state in STATES if is_terminal(state)}
    assert NEXT[RUNNING] == terminal
    assert terminal > IN_ORDER


def test_nothing_goes_back_to_the_queue() -> None:
    assert all(QUEUED not in followers for followers in NEXT.values())


@pytest.mark.parametrize(
    ("positions", "last"),
    [
        (TurnPositions(), 0),
        (TurnPositions(1), 1),
        (TurnPositions(1, 2), 2),
        (TurnPositions(1, 2, ((3, 4),)), 6),
        (TurnPositions(1, 2, ((3, 4), (9, 1))), 9),
        (TurnPositions(1, 2, ((3, 4), (9, 1)), 10), 10),
        (TurnPositions(5, 0, (), 8), 8),
    ],
)
def test_the_last_position_is_that_of_the_last_event(positions: TurnPositions, last: int) -> None:
    assert positions.last == last
