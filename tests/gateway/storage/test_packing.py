from hypothesis import given
from hypothesis import strategies as st

from agentspace.v1 import error_pb2
from gateway.domain.message import ContentBlock
from gateway.domain.turn import TurnError, TurnPositions
from gateway.domain.usage import Charge, TokenCounts, TurnUsage
from gateway.storage import packing

numbers = st.integers(0, 2**40)


@given(st.lists(st.lists(numbers)))
def test_lengths_come_back(lengths: list[list[int]]) -> None:
    assert packing.unpack_lengths(packing.pack_lengths(lengths)) == tuple(map(tuple, lengths))


@given(st.lists(numbers))
def test_numbers_come_back(values: list[int]) -> None:
    assert packing.unpack_numbers(packing.pack_numbers(values)) == values


def test_a_short_delta_takes_a_byte() -> None:
    assert len(packing.pack_numbers([127] * 50)) == 50
    assert len(packing.pack_numbers([128] * 50)) == 100


@given(
    st.builds(
        ContentBlock,
        st.integers(1, 4),
        st.text(),
        tool_use_id=st.text(),
        tool_name=st.text(),
        signature=st.text(),
        complete=st.booleans(),
        refused=st.booleans(),
    )
)
def test_blocks_come_back(block: ContentBlock) -> None:
    assert packing.load_blocks(packing.dump_blocks([block])) == (block,)


@given(st.builds(TurnPositions, numbers, numbers, st.lists(st.tuples(numbers, numbers)).map(tuple), numbers))
def test_positions_come_back(positions: TurnPositions) -> None:
    assert packing.load_positions(packing.dump_positions(positions)) == positions


def test_usage_comes_back() -> None:
    usage = TurnUsage(TokenCounts(1, 2, 3, 4, 5, 6, 7), Charge(8, 9, False, "2026-11-20"), 3, 10)
    text = packing.dump_usage(usage)
    assert text == '[[1,2,3,4,5,6,7],[8,9,false,"2026-11-20"],3,10]'
    assert packing.load_usage(text) == usage


def test_usage_of_the_first_days_had_names() -> None:
    text = (
        '{"counts":{"uncached_input":1,"cache_write_5m":2,"cache_write_1h":3,"cache_read":4,"output":5,"thinking":6,'
        '"server_tool_requests":7},"charge":{"input_pico":8,"output_pico":9,"priced":true,"price_version":"v"},'
        '"status":2,"attempts":1}'
    )
    expected = TurnUsage(TokenCounts(1, 2, 3, 4, 5, 6, 7), Charge(8, 9, True, "v"), 2, 1)
    assert packing.load_usage(text) == expected


def test_nothing_takes_no_room() -> None:
    assert packing.dump_usage(TurnUsage()) == packing.dump_error(None) == ""
    assert packing.load_usage("") == TurnUsage()
    assert packing.load_error("") is None


def test_errors_come_back() -> None:
    error = TurnError(error_pb2.ERROR_REASON_UPSTREAM_TRUNCATED, "cut", True, 1, 2, (("a", "b"),))
    assert packing.load_error(packing.dump_error(error)) == error
