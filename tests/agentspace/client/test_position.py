"""Where a reader stands, and what it has of an answer."""

import pytest

from agentspace.client.errors import StreamGapError
from agentspace.client.position import Answer, Position


def test_events_are_taken_once_and_in_order() -> None:
    position = Position(1, 4)
    assert position.advance(1, 5, 5)
    assert not position.advance(1, 5, 5)
    assert position.advance(1, 6, 9)
    assert position.seq == 9


@pytest.mark.parametrize("event", [(1, 6, 6), (2, 5, 5), (1, 4, 6)])
def test_a_gap_or_another_epoch_is_refused(event: tuple[int, int, int]) -> None:
    with pytest.raises(StreamGapError):
        Position(1, 4).advance(*event)


def test_nothing_is_taken_before_the_position_is_known() -> None:
    position = Position()
    with pytest.raises(StreamGapError):
        position.advance(0, 1, 1)
    position.set(0, 0)
    assert position.advance(0, 1, 1)


def test_the_rest_of_a_stored_answer() -> None:
    answer = Answer()
    answer.heard(0, "one ")
    answer.heard(0, "two")
    answer.heard(1, "long")
    assert list(answer.missing(["one two three", "lo", "new", ""])) == [(0, " three"), (2, "new")]
    assert list(answer.missing(["one two three", "lo", "new"])) == []


def test_a_different_answer_is_refused() -> None:
    answer = Answer()
    answer.heard(0, "one")
    with pytest.raises(StreamGapError):
        list(answer.missing(["two"]))
