"""The JSON frames of one level: text in, ClientFrame out; a member of ServerFrame in, text out.

Called by protocol.py and channels.py. Every frame, field and level comes from the annotations in the contract; a codec
compiles them once, when it is built. Does no I/O.
"""

import json
from typing import Any, NoReturn

import orjson
from google.protobuf import message_factory
from google.protobuf.message import Message

from agentspace.v1 import annotations_pb2
from agentspace.v1.frame_pb2 import ClientFrame, ServerFrame
from bridge import decoding, encoding
from bridge.decoding import FrameError

ID_CHARACTERS = 256
"""The longest id of a request: every frame of its answer carries it."""
UNKNOWN_TYPE_ECHO = 64
"""The longest unknown frame type that is repeated in the error, in characters."""
BRACE = ord("{")


class Codec:
    """The frames of a level: 1 (the original's twelve, with its fields only) or 2 (all of them)."""

    def __init__(self, level: int) -> None:
        self.level = level
        self._decoders: dict[str, tuple[str, decoding.Fill]] = {}
        self._encoders: dict[type[Message], tuple[bytes, encoding.Read]] = {}
        for field in ClientFrame.DESCRIPTOR.oneofs_by_name["body"].fields:
            frame = field.GetOptions().Extensions[annotations_pb2.frame]
            if frame.level <= level:
                self._decoders[frame.type] = (field.name, decoding.compile_body(field, level))
        for field in ServerFrame.DESCRIPTOR.oneofs_by_name["body"].fields:
            frame = field.GetOptions().Extensions[annotations_pb2.frame]
            if frame.level <= level:
                head = b'"type":' + orjson.dumps(frame.type)
                if level == 1 and frame.level_1_anonymous:
                    head = b"{" + head
                assert field.message_type is not None, field.full_name
                encode = encoding.compile_field(field, level, original=frame.level == 1)
                self._encoders[message_factory.GetMessageClass(field.message_type)] = (head, encode)

    def decode(self, text: str | bytes) -> ClientFrame:
        """Read a client's frame. Raises FrameError, with the request's id if that could be read, and nothing else."""
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = _second_opinion(text)
        if not isinstance(value, dict):
            raise FrameError("", "a JSON object")
        request_id = value.get("id")
        try:
            request_id = decoding.read_string(request_id, "id")
        except FrameError as error:
            if request_id is None:
                raise FrameError("id", "a string", message="id is missing: it must be a string") from None
            raise error from None
        if len(request_id) > ID_CHARACTERS:
            raise FrameError("id", f"at most {ID_CHARACTERS} characters")
        kind = value.get("type")
        known = self._decoders.get(kind) if isinstance(kind, str) else None
        if known is None:
            _refuse_type(kind, request_id)
        frame = ClientFrame(id=request_id)
        body = getattr(frame, known[0])
        body.SetInParent()
        try:
            known[1](value, body)
        except FrameError as error:
            error.request_id = request_id
            raise
        return frame

    def encode(self, body: Message, request_id: str) -> bytes | None:
        """Write a frame for one recipient. None: this level does not have it."""
        tail = self.encode_tail(body)
        return None if tail is None else self.join(tail, request_id)

    def encode_tail(self, body: Message) -> bytes | None:
        """Write what all recipients of a frame have in common, to be completed by join. None: not of this level."""
        known = self._encoders.get(type(body))
        if known is None:
            return None
        head, encode = known
        fields = orjson.dumps(encode(body))
        return head + b"}" if fields == b"{}" else head + b"," + fields[1:]

    @staticmethod
    def join(tail: bytes, request_id: str) -> bytes:
        """Complete a frame. request_id: empty leaves it out, as do frames that never carry one."""
        if tail[0] == BRACE:
            return tail
        if request_id:
            return b'{"requestId":' + orjson.dumps(request_id) + b"," + tail
        return b"{" + tail


def _second_opinion(text: str | bytes) -> Any:
    """Read what orjson refuses: the standard parser takes lone surrogates, so that the answer can name their field, and
    numbers of any length."""
    try:
        return json.loads(text, parse_int=_integer, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise FrameError("", "a JSON object", message="the frame is not valid JSON") from None


def _integer(digits: str) -> int:
    # Python reads no more than some thousands of digits; with a thousand a number is as much out of every range.
    return int(digits[:1000])


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _refuse_type(kind: Any, request_id: str) -> NoReturn:
    if kind is None:
        raise FrameError("type", "a string", request_id, "type is missing: it must be a string")
    if not isinstance(kind, str):
        raise FrameError("type", "a string", request_id)
    echo = f' "{kind}"' if len(kind) <= UNKNOWN_TYPE_ECHO and kind.isascii() and kind.isprintable() else ""
    raise FrameError("type", "a known frame type", request_id, f"unknown type{echo}")
