"""Messages and blocks are values."""

import pytest

from agentspace.v1 import message_pb2
from gateway.domain.message import ContentBlock, Message


def test_a_block_is_complete_until_said_otherwise() -> None:
    assert ContentBlock(message_pb2.BLOCK_KIND_TEXT, "hello").complete


def test_messages_cannot_be_changed() -> None:
    block = ContentBlock(message_pb2.BLOCK_KIND_TEXT, "hello")
    message = Message("m", "s", "t", message_pb2.ROLE_USER, (block,), "", 1)
    assert message == Message("m", "s", "t", message_pb2.ROLE_USER, (block._replace(),), "", 1)
    with pytest.raises(AttributeError):
        message.position = 2  # type: ignore[misc]
