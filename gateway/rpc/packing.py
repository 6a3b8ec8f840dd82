"""pack: a batch as the bytes of a ConnectResponse. Used by server.

Protobuf serializes the bodies. The tags and lengths around them are written here, with the contract's field numbers: to
copy a body into a ConnectResponse first costs as much as all else that is done with it on its way out.
"""

from collections.abc import Sequence
from functools import lru_cache

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor

from agentspace.v1 import frame_pb2, gateway_service_pb2
from gateway.rpc.connect import Delivery
from gateway.rpc.frames import FRAME_MEMBERS

RECIPIENTS_KEPT = 10_000
"""Of how many recipients the bytes are kept; each gets hundreds of deltas."""


def _varint(number: int) -> bytes:
    """Seven bits a byte, low bits first; the high bit says that more follow."""
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)


_SHORT = tuple(_varint(length) for length in range(128))


def _field(tag: bytes, data: bytes) -> bytes:
    """A field that holds a message or a string."""
    length = len(data)
    return tag + (_SHORT[length] if length < 128 else _varint(length)) + data


def _tag(field: FieldDescriptor) -> bytes:
    return _varint(field.number << 3 | 2)


_CHANNELS = gateway_service_pb2.ConnectResponse.DESCRIPTOR.fields_by_name["channels"]
assert _CHANNELS.message_type is not None
_PARTS = _CHANNELS.message_type.fields_by_name
assert _PARTS["recipients"].message_type is not None
_Recipient = message_factory.GetMessageClass(_PARTS["recipients"].message_type)
_CHANNEL, _TO, _FRAME, _CLOSED = map(_tag, (_CHANNELS, _PARTS["recipients"], _PARTS["frame"], _PARTS["closed"]))
_BODY = {cls: _tag(frame_pb2.ServerFrame.DESCRIPTOR.fields_by_name[name]) for cls, name in FRAME_MEMBERS.items()}


def pack(batch: Sequence[Delivery]) -> bytes:
    """The batch, in order."""
    written: list[bytes] = []
    for body, _, recipients in batch:
        data = body.SerializeToString()
        if isinstance(body, gateway_service_pb2.ChannelClosed):
            what = _field(_CLOSED, data)
        else:
            what = _field(_FRAME, _field(_BODY[type(body)], data))
        to = _recipient(recipients[0]) if len(recipients) == 1 else b"".join(map(_recipient, recipients))
        written.append(_field(_CHANNEL, what + to))
    return b"".join(written)


@lru_cache(RECIPIENTS_KEPT)
def _recipient(recipient: tuple[int, str]) -> bytes:
    channel, request_id = recipient
    return _field(_TO, _Recipient(channel=channel, request_id=request_id).SerializeToString())
