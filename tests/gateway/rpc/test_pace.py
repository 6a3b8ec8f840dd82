"""Pace: a few batches at once, then one each interval."""

from gateway.rpc.pace import FREE_BATCHES, Pace

FLUSH_SECONDS = 0.002


def test_the_first_batches_go_at_once() -> None:
    pace = Pace(FLUSH_SECONDS)
    for _ in range(FREE_BATCHES):
        assert pace.due <= 100.0
        pace.sent(100.0)


def test_under_load_one_batch_goes_each_interval() -> None:
    pace = Pace(FLUSH_SECONDS)
    now, gone = 100.0, 0
    while now < 101.0:
        now = max(now, pace.due)
        pace.sent(now)
        gone += 1
    assert 1.0 / FLUSH_SECONDS <= gone <= 1.0 / FLUSH_SECONDS + FREE_BATCHES + 2


def test_after_a_rest_batches_go_at_once_again() -> None:
    pace = Pace(FLUSH_SECONDS)
    for _ in range(100):
        pace.sent(100.0)
    assert pace.due > 100.0
    assert pace.due < 101.0
