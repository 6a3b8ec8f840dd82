"""How values without a column of their own are stored: chunk lengths as varint bytes, blocks and the like as JSON text.

Called by the repositories. Nearly every delta is shorter than 128 characters and takes one byte.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from gateway.domain.message import ContentBlock
from gateway.domain.turn import TurnError, TurnPositions
from gateway.domain.usage import Charge, TokenCounts, TurnUsage


def pack_numbers(numbers: Iterable[int]) -> bytearray:
    """Numbers >= 0, seven bits a byte, low bits first; the high bit says that more follow.

    The driver takes a bytearray as it is, and looks for an adapter whenever it is given bytes.
    """
    packed = bytearray()
    for number in numbers:
        while number > 127:
            packed.append(number & 127 | 128)
            number >>= 7
        packed.append(number)
    return packed


def unpack_numbers(packed: bytes | bytearray) -> list[int]:
    """What pack_numbers was given."""
    numbers: list[int] = []
    number = shift = 0
    for byte in packed:
        number |= (byte & 127) << shift
        if byte & 128:
            shift += 7
        else:
            numbers.append(number)
            number = shift = 0
    return numbers


def pack_lengths(chunk_lengths: Sequence[Sequence[int]]) -> bytearray:
    """Per block: how many chunks, then their lengths."""
    return pack_numbers(number for lengths in chunk_lengths for number in (len(lengths), *lengths))


def unpack_lengths(packed: bytes | bytearray) -> tuple[tuple[int, ...], ...]:
    """What pack_lengths was given."""
    numbers = unpack_numbers(packed)
    blocks: list[tuple[int, ...]] = []
    at = 0
    while at < len(numbers):
        end = at + 1 + numbers[at]
        blocks.append(tuple(numbers[at + 1 : end]))
        at = end
    return tuple(blocks)


def dump_blocks(blocks: Sequence[ContentBlock]) -> str:
    """Blocks as JSON; fields with their usual value are left out."""
    return orjson.dumps([_block(block) for block in blocks]).decode()


def _block(block: ContentBlock) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": block.kind, "text": block.text}
    if block.tool_use_id:
        fields["tool_use_id"] = block.tool_use_id
    if block.tool_name:
        fields["tool_name"] = block.tool_name
    if block.signature:
        fields["signature"] = block.signature
    if not block.complete:
        fields["complete"] = False
    if block.refused:
        fields["refused"] = True
    return fields


def load_blocks(text: str) -> tuple[ContentBlock, ...]:
    """What dump_blocks was given."""
    return tuple(ContentBlock(**fields) for fields in orjson.loads(text))


def dump_positions(positions: TurnPositions) -> str:
    """[message, started, [[first, count], ...], ended]."""
    return orjson.dumps((positions.message, positions.started, positions.deltas, positions.ended)).decode()


def load_positions(text: str) -> TurnPositions:
    """What dump_positions was given."""
    message, started, deltas, ended = orjson.loads(text)
    return TurnPositions(message, started, tuple((first, count) for first, count in deltas), ended)


_NO_USAGE = TurnUsage()


def dump_usage(usage: TurnUsage) -> str:
    """[[counts], [charge], status, attempts], the lists in the order of their types; empty while nothing was used."""
    if usage == _NO_USAGE:
        return ""
    return orjson.dumps(((*usage.counts,), (*usage.charge,), usage.status, usage.attempts)).decode()


def load_usage(text: str) -> TurnUsage:
    """What dump_usage was given."""
    if not text:
        return _NO_USAGE
    counts, charge, status, attempts = _unnamed(orjson.loads(text))
    return TurnUsage(TokenCounts(*_unnamed(counts)), Charge(*_unnamed(charge)), status, attempts)


def _unnamed(values: Any) -> Iterable[Any]:
    """Rows of the first days have names before the values, in the same order."""
    return values.values() if isinstance(values, dict) else values


def dump_error(error: TurnError | None) -> str:
    """JSON; empty for None."""
    return "" if error is None else orjson.dumps(error._asdict()).decode()


def load_error(text: str) -> TurnError | None:
    """What dump_error was given."""
    if not text:
        return None
    fields = orjson.loads(text)
    fields["metadata"] = tuple((name, value) for name, value in fields["metadata"])
    return TurnError(**fields)
