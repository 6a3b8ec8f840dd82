"""ids.py: fresh, well-formed, and no trouble on a command line."""

import re
from collections import Counter
from unittest.mock import patch

from nanoid.resources import alphabet

from gateway.ids import NanoIds

NANOID = r"[A-Za-z0-9_-]{21}"


def test_shapes() -> None:
    ids = NanoIds()
    for _ in range(300):
        assert re.fullmatch(rf"(?!-){NANOID}", ids.session())
    assert re.fullmatch(rf"turn_{NANOID}", ids.turn())
    assert re.fullmatch(rf"msg_{NANOID}", ids.message())


def test_fresh() -> None:
    ids = NanoIds()
    assert len({make() for make in (ids.session, ids.turn, ids.message) for _ in range(1000)}) == 3000


def test_a_session_never_looks_like_an_option() -> None:
    dash = alphabet.index("-")
    with patch("gateway.ids.os.urandom", return_value=bytes([dash] * 42 + [0] * 4054)):
        assert NanoIds().session() == alphabet[0] * 21


def test_every_character_is_as_likely_as_any_other() -> None:
    with patch("gateway.ids.os.urandom", return_value=bytes(range(256)) * 21):
        ids = NanoIds()
        counts = Counter("".join(ids.message().removeprefix("msg_") for _ in range(256)))
    assert counts == dict.fromkeys(alphabet, 84)
