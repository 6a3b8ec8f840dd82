"""The turn log: the text is the log, whatever way it is cut."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.turn_log import OPAQUE, TEXT, THINKING, TOOL_USE, TurnLog

blocks = st.lists(
    st.tuples(st.sampled_from([TEXT, THINKING, TOOL_USE, OPAQUE]), st.lists(st.text(max_size=8), max_size=6)),
    max_size=6,
)
Blocks = list[tuple[int, list[str]]]


def filled(given_blocks: Blocks) -> TurnLog:
    log = TurnLog("turn_1", "msg_1", "scripted/echo")
    for kind, chunks in given_blocks:
        log.open_block(kind, "call_1" if kind == TOOL_USE else "", "search" if kind == TOOL_USE else "")
        for chunk in chunks:
            log.append(chunk)
        log.close_block("proof" if kind == THINKING else "")
    return log


@given(blocks)
def test_content_is_the_chunks_of_each_block(given_blocks: Blocks) -> None:
    log = filled(given_blocks)
    assert [(block.kind, block.text) for block in log.content()] == [(k, "".join(c)) for k, c in given_blocks]
    assert log.characters == sum(len(block.text) for block in log.content())
    assert all(block.complete for block in log.content())


@given(blocks, st.data())
def test_pieces_are_the_chunks_of_the_range_under_their_blocks(given_blocks: Blocks, data: st.DataObject) -> None:
    log = filled(given_blocks)
    start = data.draw(st.integers(0, len(log.chunks)))
    stop = data.draw(st.integers(start, len(log.chunks)))
    limit = data.draw(st.integers(1, 20))
    owners = [index for index, (_, chunks) in enumerate(given_blocks) for _ in chunks]
    at = start
    for block, first, end, text in log.pieces(start, stop, limit):
        assert first == at < end
        assert text == "".join(log.chunks[first:end])
        assert set(owners[first:end]) == {block.index}
        assert len("".join(log.chunks[first : end - 1])) < limit
        at = end
    assert at == stop


@given(blocks)
def test_a_stored_answer_gives_the_same_log(given_blocks: Blocks) -> None:
    log = filled(given_blocks)
    again = TurnLog.restore("turn_1", "msg_1", "scripted/echo", log.content(), log.chunk_lengths())
    assert again.chunks == log.chunks
    assert again.blocks == log.blocks
    assert again.content() == log.content()


@given(blocks, st.data())
def test_lengths_from_a_chunk_on_are_those_of_the_later_chunks(given_blocks: Blocks, data: st.DataObject) -> None:
    log = filled(given_blocks)
    first = data.draw(st.integers(0, len(log.chunks)))
    lengths = log.chunk_lengths(first)
    assert len(lengths) == len(log.blocks)
    assert [length for block in lengths for length in block] == [len(chunk) for chunk in log.chunks[first:]]


def test_a_block_is_incomplete_until_it_is_closed() -> None:
    log = TurnLog("turn_1", "msg_1", "m")
    log.open_block(THINKING)
    log.append("hm")
    assert not log.content()[0].complete
    log.close_block("proof")
    assert log.content()[0].complete
    assert log.content()[0].signature == "proof"
