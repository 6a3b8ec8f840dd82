"""clock.py: the real time, and a time that never goes back."""

import time

from gateway.clock import SystemClock


def test_now_is_unix_milliseconds() -> None:
    before = int(time.time() * 1000)
    now = SystemClock().now_ms()
    assert before - 1 <= now <= time.time() * 1000 + 1
    assert isinstance(now, int)


def test_monotonic_is_seconds_that_never_go_back() -> None:
    clock = SystemClock()
    seen = [clock.monotonic() for _ in range(100)]
    assert seen == sorted(seen)
    assert abs(clock.monotonic() - time.monotonic()) < 1
