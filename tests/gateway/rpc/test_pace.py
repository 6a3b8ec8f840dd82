"""Pace: a few batches at once, then each an interval after the last, sooner what is in more of a hurry."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, cast

import pytest

from gateway.rpc import pace as module
from gateway.rpc.pace import FREE_BATCHES, LATER, LATER_SECONDS, NOW, ROUNDS, SOON, SOON_SECONDS, Pace


class Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """An event loop whose clock stands still while callbacks run."""

    def __init__(self) -> None:
        self.now = 100.0
        self._number = count()
        self._due: list[tuple[float, int, Handle, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> Handle:
        return self.call_at(self.now, callback, *arguments)

    def call_at(self, when: float, callback: Callable[..., None], *arguments: Any) -> Handle:
        handle = Handle()
        heapq.heappush(self._due, (when, next(self._number), handle, lambda: callback(*arguments)))
        return handle

    def round(self) -> None:
        """One turn of the loop."""
        due, self._due = (
            [item for item in self._due if item[0] <= self.now],
            [item for item in self._due if item[0] > self.now],
        )
        for _, _, handle, callback in sorted(due, key=lambda item: item[:2]):
            if not handle.cancelled:
                callback()

    def run(self, until: float) -> None:
        """Turn until that time."""
        while (ahead := [item[0] for item in self._due if not item[2].cancelled]) and min(ahead) <= until:
            self.now = max(self.now, min(ahead))
            self.round()
        self.now = until


class Batches:
    """When batches went; each takes `takes` to leave."""

    def __init__(self, takes: float = 0.0) -> None:
        self.loop = Loop()
        self.takes = takes
        self.went: list[float] = []
        self.again = 0
        self.pace = Pace(self.go, cast(Any, self.loop))

    def go(self) -> None:
        self.went.append(self.loop.now)
        self.pace.begin()
        self.loop.now += self.takes
        if self.again:
            self.pace.hurry(self.again)
        self.pace.left()

    def exhaust(self) -> None:
        """Send so many that the next has to wait."""
        for _ in range(FREE_BATCHES + 2):
            self.pace.hurry(NOW)
            self.loop.round()
        self.went.clear()


def test_the_first_batches_go_at_once() -> None:
    batches = Batches()
    for _ in range(FREE_BATCHES):
        batches.pace.hurry(LATER)
        batches.loop.run(100.0)
    assert batches.went == [100.0] * FREE_BATCHES


@pytest.mark.parametrize(
    ("haste", "takes", "interval"),
    [
        (LATER, 0.0, LATER_SECONDS),
        (LATER, 0.001, LATER_SECONDS),
        (LATER, 0.008, 0.008),
        (SOON, 0.0, SOON_SECONDS),
        (SOON, 0.001, SOON_SECONDS),
        (SOON, 0.008, 0.008),
    ],
)
def test_under_load_each_goes_an_interval_after_the_one_before(haste: int, takes: float, interval: float) -> None:
    batches = Batches(takes)
    batches.again = haste
    batches.pace.hurry(haste)
    batches.loop.run(101.0)
    apart = [after - before for before, after in zip(batches.went, batches.went[1:], strict=False)]
    steady = apart[2 * FREE_BATCHES :]
    assert steady == pytest.approx([interval] * len(steady))
    assert len(apart) > 80


def test_what_has_time_waits_an_interval_from_when_it_was_ready() -> None:
    batches = Batches()
    batches.exhaust()
    for ready in (100.002, 100.008, 100.014):
        batches.loop.run(ready)
        batches.pace.hurry(LATER)
    batches.loop.run(101.0)
    assert batches.went == pytest.approx([ready + LATER_SECONDS for ready in (100.002, 100.008, 100.014)])


def test_what_is_to_go_soon_does_not_wait_longer_for_what_has_time() -> None:
    batches = Batches()
    batches.exhaust()
    batches.loop.run(100.001)
    batches.pace.hurry(LATER)
    batches.loop.run(100.0015)
    batches.pace.hurry(SOON)
    batches.loop.run(101.0)
    assert batches.went == pytest.approx([100.0 + SOON_SECONDS])


def test_what_is_in_more_of_a_hurry_makes_the_batch_go_sooner() -> None:
    batches = Batches()
    batches.exhaust()
    batches.pace.hurry(LATER)
    batches.loop.run(100.001)
    batches.pace.hurry(SOON)
    batches.loop.run(101.0)
    assert batches.went == pytest.approx([100.0 + SOON_SECONDS])


def test_what_somebody_waits_for_goes_in_the_next_round_and_leaves_nothing_behind() -> None:
    batches = Batches()
    batches.exhaust()
    batches.pace.hurry(LATER)
    batches.pace.hurry(NOW)
    batches.loop.round()
    assert batches.went == [100.0]
    batches.loop.run(101.0)
    assert batches.went == [100.0]


def test_a_batch_that_is_due_waits_a_few_rounds() -> None:
    batches = Batches()
    batches.pace.hurry(SOON)
    for _ in range(ROUNDS - 1):
        batches.loop.round()
        assert not batches.went
    batches.loop.round()
    assert batches.went == [100.0]


def test_long_rounds_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUNDS", 10**12)
    batches = Batches()
    batches.pace.hurry(SOON)
    batches.loop.round()
    assert not batches.went
    batches.loop.now += SOON_SECONDS
    batches.loop.round()
    assert len(batches.went) == 1


def test_after_a_rest_batches_go_at_once_again() -> None:
    batches = Batches()
    batches.exhaust()
    batches.loop.now += (FREE_BATCHES + 1) * LATER_SECONDS
    began = batches.loop.now
    for _ in range(FREE_BATCHES):
        batches.pace.hurry(LATER)
        batches.loop.run(began)
    assert batches.went == [began] * FREE_BATCHES


def test_batches_that_went_before_their_time_hold_up_nothing_for_longer_than_an_interval() -> None:
    batches = Batches()
    for _ in range(1000):
        batches.pace.hurry(NOW)
        batches.loop.round()
    batches.went.clear()
    batches.pace.hurry(LATER)
    batches.loop.run(101.0)
    assert batches.went == pytest.approx([100.0 + LATER_SECONDS])


def test_what_becomes_ready_while_a_batch_leaves_waits_for_that() -> None:
    batches = Batches()
    batches.pace.begin()
    batches.pace.hurry(SOON)
    batches.loop.run(101.0)
    assert not batches.went
    batches.pace.left()
    batches.loop.run(101.0)
    assert batches.went == [101.0]


def test_a_batch_takes_all_that_is_ready() -> None:
    batches = Batches()
    batches.pace.hurry(SOON)
    batches.pace.begin()
    batches.pace.left()
    batches.loop.run(101.0)
    assert not batches.went
