"""The frames of the contract, as Connect needs to know them: their names, their levels and their sizes. Used by connect
and server.
"""

from google.protobuf.message import Message

from agentspace.v1 import annotations_pb2, frame_pb2
from gateway.rpc.methods import members_by_type

FRAME_MEMBERS = members_by_type(frame_pb2.ServerFrame, "body")
"""The name of a ServerFrame's member by the class of its value."""
_FIELDS = {cls: frame_pb2.ServerFrame.DESCRIPTOR.fields_by_name[name] for cls, name in FRAME_MEMBERS.items()}
LEVEL = {cls: field.GetOptions().Extensions[annotations_pb2.frame].level for cls, field in _FIELDS.items()}
"""The lowest level that has the frame, by the class of a ServerFrame's member."""
_HEAD_BYTES = {cls: 2 if field.number < 16 else 3 for cls, field in _FIELDS.items()}
"""What a member takes before its first byte, if it has less than 128: its tag and its length."""
FRAME_TYPE = {
    field.name: field.GetOptions().Extensions[annotations_pb2.frame].type
    for field in frame_pb2.ClientFrame.DESCRIPTOR.oneofs_by_name["body"].fields
}
"""A frame's type by the name of a ClientFrame's member."""


def frame_bytes(body: Message) -> int:
    """The size on the wire of the ServerFrame with this member."""
    size = body.ByteSize()
    head = _HEAD_BYTES[type(body)]
    # A length has seven bits a byte.
    return size + head if size < 128 else size + head + (size.bit_length() - 1) // 7
