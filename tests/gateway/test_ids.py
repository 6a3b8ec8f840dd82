"""ids.py: fresh, well-formed, in the order of time, and no trouble on a command line."""

import re
from collections import Counter
from unittest.mock import patch

import pytest
from nanoid.resources import alphabet

from gateway.clock import SystemClock
from gateway.ids import RANDOM_CHARACTERS, TIME_CHARACTERS, NanoIds

NANOID = r"[A-Za-z0-9_-]{21}"


class Second:
    """A clock that stands within a second."""

    def __init__(self, second: int, ms: int = 999) -> None:
        self.second = second
        self.ms = ms

    def now_ms(self) -> int:
        return self.second * 1000 + self.ms

    def monotonic(self) -> float:
        return 0.0


def test_shapes() -> None:
    ids = NanoIds(SystemClock())
    for _ in range(300):
        assert re.fullmatch(NANOID, ids.session())
    assert re.fullmatch(rf"turn_{NANOID}", ids.turn())
    assert re.fullmatch(rf"msg_{NANOID}", ids.message())


def test_fresh() -> None:
    ids = NanoIds(Second(1_764_000_000))
    assert len({make() for make in (ids.session, ids.turn, ids.message) for _ in range(1000)}) == 3000


def test_ids_sort_by_the_second_they_were_made_in() -> None:
    clock = Second(0)
    ids = NanoIds(clock)
    made = []
    for clock.second in (0, 1, 62, 63, 64, 3968, 3969, 1_764_000_000, 1_764_000_001, 1_764_000_063, 4_102_444_800):
        made.append(ids.session().encode())
    assert made == sorted(made)
    assert len({name[:TIME_CHARACTERS] for name in made}) == len(made)


def test_ids_of_a_second_sort_by_its_64ths() -> None:
    clock = Second(1_764_000_000)
    ids = NanoIds(clock)
    made = []
    for clock.ms in range(0, 1000, 16):
        made.append(ids.session().encode())
    assert made == sorted(made)
    assert len({name[:TIME_CHARACTERS] for name in made}) == 63


@pytest.mark.parametrize("second", [0, 1_764_000_000, 59_000_000_000])
def test_a_session_never_looks_like_an_option(second: int) -> None:
    dash = alphabet.index("-")
    with patch("gateway.ids.os.urandom", return_value=bytes([dash] * 4096)):
        name = NanoIds(Second(second)).session()
    assert name.endswith("-" * RANDOM_CHARACTERS)
    assert not name.startswith("-")


def test_every_character_is_as_likely_as_any_other() -> None:
    with patch("gateway.ids.os.urandom", return_value=bytes(range(256)) * RANDOM_CHARACTERS):
        ids = NanoIds(SystemClock())
        counts = Counter("".join(ids.session()[TIME_CHARACTERS:] for _ in range(256)))
    assert counts == dict.fromkeys(alphabet, 4 * RANDOM_CHARACTERS)
