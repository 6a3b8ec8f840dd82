"""TurnLog: the answer of a turn as it grows. The log is the text: chunks of text, and blocks that say which chunks are
theirs.

Written by run_turn, read through session_log (live) and by checkpoints. Rebuilt from storage for turns that have ended.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentspace.v1 import message_pb2
from agentspace.v1.message_pb2 import BlockKind
from gateway.domain.message import ContentBlock

TEXT = message_pb2.BLOCK_KIND_TEXT
THINKING = message_pb2.BLOCK_KIND_THINKING
TOOL_USE = message_pb2.BLOCK_KIND_TOOL_USE
OPAQUE = message_pb2.BLOCK_KIND_OPAQUE


@dataclass(slots=True)
class Block:
    """A content block of the answer; its chunks are those from `first_chunk` to the next block's."""

    index: int
    kind: BlockKind.ValueType
    first_chunk: int
    tool_use_id: str = ""
    tool_name: str = ""
    signature: str = ""
    complete: bool = False


class TurnLog:
    """Blocks and chunks. Each chunk is one delta event; appending is O(1) whatever the length of the answer."""

    __slots__ = (
        "_first_chunks",
        "blocks",
        "characters",
        "chunks",
        "complete_blocks",
        "message_id",
        "model",
        "turn_id",
    )

    def __init__(self, turn_id: str, message_id: str, model: str) -> None:
        self.turn_id = turn_id
        self.message_id = message_id
        self.model = model
        self.blocks: list[Block] = []
        self.chunks: list[str] = []
        self.characters = 0
        self.complete_blocks = 0
        """How many blocks are complete: these come first, as only the newest can be open."""
        self._first_chunks: list[int] = []

    def open_block(self, kind: BlockKind.ValueType, tool_use_id: str = "", tool_name: str = "") -> None:
        """Begin the next block. Its chunks follow."""
        first = len(self.chunks)
        self.blocks.append(Block(len(self.blocks), kind, first, tool_use_id, tool_name))
        self._first_chunks.append(first)

    def close_block(self, signature: str = "") -> None:
        """The newest block is complete."""
        block = self.blocks[-1]
        block.complete = True
        block.signature = signature
        self.complete_blocks = len(self.blocks)

    def append(self, text: str) -> None:
        """Add one delta to the newest block."""
        self.chunks.append(text)
        self.characters += len(text)

    def block_of(self, chunk: int) -> Block:
        """The block a chunk belongs to."""
        if chunk >= self._first_chunks[-1]:
            return self.blocks[-1]
        return self.blocks[bisect_right(self._first_chunks, chunk) - 1]

    def pieces(self, start: int, stop: int, limit: int) -> Iterator[tuple[Block, int, int, str]]:
        """The chunks from `start` to before `stop`, neighbours of one block merged up to about `limit` characters
        each, as (block, first chunk, chunk after the last, text)."""
        chunks = self.chunks
        if stop - start == 1:
            yield self.block_of(start), start, stop, chunks[start]
            return
        while start < stop:
            index = bisect_right(self._first_chunks, start) - 1
            block_end = self._first_chunks[index + 1] if index + 1 < len(self._first_chunks) else len(chunks)
            end, size = start, 0
            last = min(stop, block_end)
            while end < last and size < limit:
                size += len(chunks[end])
                end += 1
            yield self.blocks[index], start, end, "".join(chunks[start:end])
            start = end

    def content(self, *, refused: bool = False) -> tuple[ContentBlock, ...]:
        """The answer so far, block by block; `refused` as in ContentBlock."""
        ends = [*self._first_chunks, len(self.chunks)][1:]
        return tuple(
            ContentBlock(
                block.kind,
                "".join(self.chunks[block.first_chunk : end]),
                block.tool_use_id,
                block.tool_name,
                block.signature,
                block.complete,
                refused,
            )
            for block, end in zip(self.blocks, ends, strict=True)
        )

    @classmethod
    def restore(
        cls,
        turn_id: str,
        message_id: str,
        model: str,
        content: Sequence[ContentBlock],
        chunk_lengths: Sequence[Sequence[int]],
    ) -> "TurnLog":
        """The log of a stored answer: `chunk_lengths` has one list per block."""
        log = cls(turn_id, message_id, model)
        for block, lengths in zip(content, chunk_lengths, strict=True):
            log.open_block(block.kind, block.tool_use_id, block.tool_name)
            offset = 0
            for length in lengths:
                log.append(block.text[offset : offset + length])
                offset += length
            log.blocks[-1].signature = block.signature
            log.blocks[-1].complete = block.complete
        return log

    def chunk_lengths(self, first_chunk: int = 0) -> list[list[int]]:
        """Per block, the lengths in characters of its chunks from `first_chunk` of the log on."""
        ends = [*self._first_chunks, len(self.chunks)][1:]
        return [
            [len(chunk) for chunk in self.chunks[max(block.first_chunk, first_chunk) : end]]
            for block, end in zip(self.blocks, ends, strict=True)
        ]
