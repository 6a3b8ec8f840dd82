"""Messages and their content blocks as the gateway keeps them."""

from collections.abc import Iterable
from typing import NamedTuple

from agentspace.v1 import message_pb2
from agentspace.v1.message_pb2 import BlockKind, Role


class ContentBlock(NamedTuple):
    """One piece of a message. `text` is text, thinking, a tool call's JSON input, or an opaque block's JSON.
    `complete` False: cut short; never sent to a provider unless it is text. `refused`: of an answer that the provider
    broke off as against its rules; kept, and never sent again."""

    kind: BlockKind.ValueType
    text: str
    tool_use_id: str = ""
    tool_name: str = ""
    signature: str = ""
    complete: bool = True
    refused: bool = False


class Message(NamedTuple):
    """One entry of a session's history. `position` orders a session's messages; `created_ms` is Unix milliseconds."""

    message_id: str
    session_id: str
    turn_id: str
    role: Role.ValueType
    blocks: tuple[ContentBlock, ...]
    model: str
    created_ms: int
    position: int = 0

    @property
    def text(self) -> str:
        """The text blocks in one."""
        return text_of(self.blocks)


def text_of(blocks: Iterable[ContentBlock]) -> str:
    """The text among the blocks, without thinking, tools and the like."""
    return "".join(block.text for block in blocks if block.kind == message_pb2.BLOCK_KIND_TEXT)
