"""ids.py: fresh, well-formed, and no trouble on a command line."""

import re
from unittest.mock import patch

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
    with patch("gateway.ids.generate", side_effect=["-" + "a" * 20, "--" + "a" * 19, "b" * 21]):
        assert NanoIds().session() == "b" * 21
