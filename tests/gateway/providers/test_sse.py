"""Event data out of bytes, however they are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers import sse
from gateway.providers.sse import SseError, SseParser


def parse(*chunks: bytes) -> list[bytes | bytearray]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"event: a\ndata: 1\n\n", [b"1"]),
        (b"data:1\n\ndata:  2\n\n", [b"1", b" 2"]),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"1", b"2"]),
        (b"data: 1\rdata: 2\r\r\n", [b"1\n2"]),
        (b": comment\n\ndata: 1\nid: 7\nretry: 3\nnonsense\n\n", [b"1"]),
        (b"data: first\ndata: second\n\n", [b"first\nsecond"]),
        (b"data:\n\ndata\n\nevent: lonely\n\n", []),
        (b"data: not yet complete\n", []),
        (b"\n\n\n", []),
        ("data: grüße\u2028\x85\x0c\n\n".encode(), ["grüße\u2028\x85\x0c".encode()]),
    ],
)
def test_reads_events(stream: bytes, events: list[bytes]) -> None:
    assert parse(stream) == events
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == events


@given(
    st.lists(st.sampled_from([b"data: x", b"data:", b"data: yy", b"event: e", b":c", b"", b""]), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.lists(st.integers(0, 120), max_size=6),
)
def test_cuts_do_not_matter(lines: list[bytes], newline: bytes, cuts: list[int]) -> None:
    stream = b"".join(line + newline for line in lines)
    places = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
    assert parse(*(stream[a:b] for a, b in pairwise(places))) == parse(stream)


@pytest.mark.parametrize("piece", [b"x" * 700, b"x\ndata: " + b"x" * 699, b"\rdata: x" * 100])
def test_an_endless_event_is_an_error(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 5000)
    with pytest.raises(SseError):
        parse(b"data: ", *[piece] * 100)


def test_many_large_events_are_fine() -> None:
    event = b"data: " + b"x" * 1_000_000 + b"\n\n"
    parser = SseParser()
    assert sum(len(parser.feed(event[:777_777]) + parser.feed(event[777_777:])) for _ in range(20)) == 20
