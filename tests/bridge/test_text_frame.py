"""text_frame.py: heads of every length, and texts that come out as they went in."""

import pytest

from bridge.text_frame import text_frame


def texts_of(frames: bytes) -> list[bytes]:
    """The texts of frames that follow one another."""
    texts, at = [], 0
    while at < len(frames):
        assert frames[at] == 0x81
        extended = {126: 2, 127: 8}.get(frames[at + 1], 0)
        start = at + 2 + extended
        length = int.from_bytes(frames[at + 2 : start]) if extended else frames[at + 1]
        at = start + length
        texts.append(frames[start:at])
    return texts


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536, 2**20])
def test_heads(length: int) -> None:
    frame = text_frame(b"x" * length)
    assert len(frame) - length == (2 if length < 126 else 4 if length < 65536 else 10)
    assert texts_of(frame + text_frame(b"next")) == [b"x" * length, b"next"]
