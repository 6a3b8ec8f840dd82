"""Server messages to JSON values: one encoder per message, compiled from the descriptors.

Called by frames.py when a codec is built. Knows the contract's annotations; does no I/O.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from agentspace.v1 import annotations_pb2

Read = Callable[[Any], Any]
"""Message in, JSON value out."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PICO = 10**12
FIRST_SECOND = -62_135_596_800
LAST_SECOND = 253_402_300_799


def compile_message(message: Descriptor, level: int, original: bool) -> Read:
    """Compile the encoder of a message: message in, dict of JSON values out.

    level: fields above it are left out. original: the message belongs to a frame of level 1, so that nested messages
    which are not set are written with all their zeros, as the clients of that frame expect; elsewhere they are null.
    """
    fields = [field for field in message.fields if options(field).level <= level]
    if all(_is_plain(field) for field in fields):
        return _flat([field.json_name for field in fields], [field.name for field in fields])
    plan = [(field.json_name, _reader(field, level, original), options(field).omit_empty) for field in fields]

    def encode(value: Any) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, read, omit_empty in plan:
            item = read(value)
            if item or not omit_empty:
                out[key] = item
        return out

    return encode


def options(field: FieldDescriptor) -> annotations_pb2.JsonOptions:
    """Give a field's place in JSON."""
    return field.GetOptions().Extensions[annotations_pb2.json]


def message_name(field: FieldDescriptor) -> str:
    """Give the full name of a field's message; empty for fields that hold no message."""
    return field.message_type.full_name if field.message_type is not None else ""


def compile_field(field: FieldDescriptor, level: int, original: bool) -> Read:
    """Compile the encoder of the message a field holds; see compile_message."""
    assert field.message_type is not None, field.full_name
    return compile_message(field.message_type, level, original)


def enum_names(enum: EnumDescriptor) -> dict[int, str]:
    """Map an enum's numbers to its names without the enum's prefix, in upper case: {1: "REJECT"}."""
    # The zero value is always named PREFIX_UNSPECIFIED.
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.number: value.name.removeprefix(prefix) for value in enum.values}


def _is_plain(field: FieldDescriptor) -> bool:
    scalar = field.type not in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_BYTES)
    return scalar and not field.is_repeated and not field.has_presence and not options(field).omit_empty


def _flat(keys: list[str], names: list[str]) -> Read:
    if not names:
        return lambda _: {}
    if len(names) == 1:
        key, first = keys[0], attrgetter(names[0])
        return lambda value: {key: first(value)}
    every = attrgetter(*names)
    return lambda value: dict(zip(keys, every(value), strict=True))


def _reader(field: FieldDescriptor, level: int, original: bool) -> Read:
    get = attrgetter(field.name)
    if field.is_repeated:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return _map_reader(field, get, level, original)
        convert = _converter(field, level, original)
        return lambda value: [convert(item) for item in get(value)]
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _message_reader(field, get, level, original)
    convert = _converter(field, level, original)
    if options(field).omit_empty:
        return lambda value: convert(item) if (item := get(value)) else None
    if field.has_presence:
        name = field.name
        return lambda value: convert(get(value)) if value.HasField(name) else None
    return lambda value: convert(get(value))


def _message_reader(field: FieldDescriptor, get: Read, level: int, original: bool) -> Read:
    kept = original and options(field).level <= 1 and not options(field).omit_empty
    convert = _converter(field, level, kept)
    if message_name(field) == "agentspace.v1.Money":
        kept = True
    elif message_name(field) == "google.protobuf.Timestamp":
        kept = False
    name = field.name
    if kept:
        return lambda value: convert(get(value))
    return lambda value: convert(get(value)) if value.HasField(name) else None


def _map_reader(field: FieldDescriptor, get: Read, level: int, original: bool) -> Read:
    assert field.message_type is not None, field.full_name
    convert = _converter(field.message_type.fields_by_name["value"], level, original)
    return lambda value: {str(key): convert(item) for key, item in get(value).items()}


def _converter(field: FieldDescriptor, level: int, original: bool) -> Read:
    if field.enum_type is not None:
        return _enum_converter(field.enum_type, level)
    if field.type != FieldDescriptor.TYPE_MESSAGE:
        if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_GROUP):
            raise TypeError(f"{field.full_name} has a type that frames cannot carry")
        return lambda value: value
    return SPECIAL.get(message_name(field)) or compile_field(field, level, original)


def _enum_converter(enum: EnumDescriptor, level: int) -> Read:
    names = enum_names(enum)
    if enum.full_name == "agentspace.v1.ErrorReason":
        # A reason this bridge does not know yet is a fault of the server to the client.
        fallback = "INTERNAL"
        names[0] = fallback
        if level == 1:
            reasons = {v.number: v.GetOptions().Extensions[annotations_pb2.reason].level_1_code for v in enum.values}
            fallback = "LLM_ERROR"
            names = {number: code or fallback for number, code in reasons.items()}
    else:
        fallback = "unspecified"
        names = {number: name.lower() for number, name in names.items()}
    return lambda value: names.get(value, fallback)


def _money(value: Any) -> int | float:
    pico: int = value.pico_usd
    # Whole amounts are written without a fraction, as the original did: 0, not 0.0.
    return pico / PICO if pico % PICO else pico // PICO


def _timestamp(value: Any) -> str:
    seconds = min(max(value.seconds, FIRST_SECOND), LAST_SECOND)
    # isoformat, because strftime costs eight times as much and a page of sessions has a hundred times.
    whole = (EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
    return f"{whole}.{min(max(value.nanos, 0) // 1_000_000, 999):03d}Z"


def _field_mask(value: Any) -> str:
    return ",".join(value.paths)


SPECIAL: dict[str, Read] = {
    "agentspace.v1.Money": _money,
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.FieldMask": _field_mask,
}
"""Messages that are one JSON value: a number of US dollars, an ISO 8601 time in UTC with milliseconds, joined paths."""
