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
        (b"data: 1\r\rdata: 2\r\r", [b"1", b"2"]),
        (b"data: 1\n\r\ndata: 2\r\n\r", [b"1", b"2"]),
        (b"\rdata: 1\r\r\ndata: 2\r\rdata: 3\r", [b"1", b"2"]),
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


LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(
    st.lists(st.sampled_from([b"data: x", b"data:", b"data: yy", b"event: e", b":c", b"", b""]), max_size=12),
    st.one_of(LINE_ENDS.map(lambda end: [end] * 12), st.lists(LINE_ENDS, min_size=12, max_size=12)),
    st.lists(st.integers(0, 120), max_size=6),
)
def test_cuts_do_not_matter(lines: list[bytes], ends: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    places = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
    assert parse(*(stream[a:b] for a, b in pairwise(places))) == parse(stream)
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == parse(stream)


@given(st.lists(st.tuples(LINE_ENDS, LINE_ENDS), max_size=8), st.integers(1, 30))
def test_a_complete_event_waits_for_nothing(ends: list[tuple[bytes, bytes]], size: int) -> None:
    """Whatever ends its lines, and though a lone CR may turn out to be half of a CRLF."""
    parser = SseParser()
    for number, (first, second) in enumerate(ends):
        # A LF right behind a lone CR would be the same line end.
        second = b"\r" if (first, second) == (b"\r", b"\n") else second
        event = b"id: 1%sdata: %d%s%s" % (first, number, first, second)
        heard = [data for at in range(0, len(event), size) for data in parser.feed(event[at : at + size])]
        assert heard == [b"%d" % number]


@pytest.mark.parametrize("piece", [b"x" * 700, b"x\ndata: " + b"x" * 699, b"\rdata: x" * 100])
def test_an_endless_event_is_an_error(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 5000)
    with pytest.raises(SseError):
        parse(b"data: ", *[piece] * 100)


def test_many_large_events_are_fine() -> None:
    event = b"data: " + b"x" * 1_000_000 + b"\n\n"
    parser = SseParser()
    assert sum(len(parser.feed(event[:777_777]) + parser.feed(event[777_777:])) for _ in range(20)) == 20
