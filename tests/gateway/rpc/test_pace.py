"""Pace: a few batches at once, then each an interval after the last."""

import pytest

from gateway.rpc.pace import FLUSH_SECONDS, FREE_BATCHES, Pace


def test_the_first_batches_go_at_once() -> None:
    pace = Pace()
    for _ in range(FREE_BATCHES):
        assert pace.due <= 100.0
        pace.left(100.0, 100.0)


@pytest.mark.parametrize("on_its_way", [0.0, 0.001, 0.008])
def test_under_load_each_batch_goes_an_interval_after_the_one_before_has_left(on_its_way: float) -> None:
    pace = Pace()
    now, gone = 100.0, 0
    while now < 101.0:
        began = max(now, pace.due)
        now = began + on_its_way
        pace.left(began, now)
        gone += 1
    each = FLUSH_SECONDS + on_its_way
    assert 1.0 / each - 1 <= gone <= 1.0 / each + FREE_BATCHES + 2


def test_after_a_rest_batches_go_at_once_again() -> None:
    pace = Pace()
    now = 100.0
    for _ in range(100):
        now = max(now, pace.due)
        pace.left(now, now)
    assert pace.due > now
    now += FREE_BATCHES * FLUSH_SECONDS + FLUSH_SECONDS
    for _ in range(FREE_BATCHES):
        assert pace.due <= now
        pace.left(now, now)


def test_batches_that_went_before_their_time_hold_up_nothing_for_longer_than_an_interval() -> None:
    pace = Pace()
    for _ in range(1000):
        pace.left(100.0, 100.0)
    assert pace.due <= 100.0 + FLUSH_SECONDS
