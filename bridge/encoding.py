"""Server messages to JSON values: one encoder per message, compiled from the descriptors.

Called by frames.py when a codec is built. Knows the contract's annotations; does no I/O.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
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
    names: dict[str, Any] = {}
    items, optional = [], []
    for field in message.fields:
        if options(field).level > level:
            continue
        read = _expression(field, level, original, names)
        if options(field).omit_empty:
            optional.append(f"    if item := {read}: out[{field.json_name!r}] = item")
        else:
            items.append(f"{field.json_name!r}: {read}")
    # Written out, because a loop over the fields costs three times as much. All names are the contract's.
    lines = ["def encode(value):", f"    out = {{{', '.join(items)}}}", *optional, "    return out"]
    exec("\n".join(lines), names)  # noqa: S102
    encode: Read = names["encode"]
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


def _expression(field: FieldDescriptor, level: int, original: bool, names: dict[str, Any]) -> str:
    """Write how a field of the message `value` is read; what that needs goes into `names`."""
    name, special = field.name, message_name(field)
    kept = original and options(field).level <= 1 and not options(field).omit_empty
    if special == "agentspace.v1.Money":
        kept = True
    elif special == "google.protobuf.Timestamp":
        kept = False
    inner = field
    if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
    converted = "{}"
    if (convert := _converter(inner, level, original if field.is_repeated else kept)) is not None:
        names[f"convert_{name}"] = convert
        converted = f"convert_{name}({{}})"
    if inner is not field:
        return f"{{str(key): {converted.format('item')} for key, item in value.{name}.items()}}"
    if field.is_repeated:
        return f"[{converted.format('item')} for item in value.{name}]"
    read = converted.format(f"value.{name}")
    if field.has_presence and not (kept and field.message_type is not None):
        return f"({read} if value.HasField({name!r}) else None)"
    if options(field).omit_empty and field.enum_type is not None:
        return f"({read} if value.{name} else None)"
    return read


def _converter(field: FieldDescriptor, level: int, original: bool) -> Read | None:
    """How a value of the field becomes JSON; None for what is JSON already."""
    if field.enum_type is not None:
        return _enum_converter(field.enum_type, level)
    if field.type != FieldDescriptor.TYPE_MESSAGE:
        if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_GROUP):
            raise TypeError(f"{field.full_name} has a type that frames cannot carry")
        return None
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
    seconds = value.seconds
    if not FIRST_SECOND <= seconds <= LAST_SECOND:
        seconds = FIRST_SECOND if seconds < 0 else LAST_SECOND
    millisecond = value.nanos // 1_000_000 % 1000
    return f"{_up_to_minute(seconds // 60)}{_SECOND[seconds % 60]}{_MILLISECOND[millisecond]}"


_SECOND = tuple(f"{second:02d}." for second in range(60))
_MILLISECOND = tuple(f"{millisecond:03d}Z" for millisecond in range(1000))


@lru_cache(4096)
def _up_to_minute(minute: int) -> str:
    # A page of sessions has a hundred times, and writing one from scratch costs ten times as much as this.
    return (EPOCH + timedelta(minutes=minute)).isoformat()[:17]


def _field_mask(value: Any) -> str:
    return ",".join(value.paths)


SPECIAL: dict[str, Read] = {
    "agentspace.v1.Money": _money,
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.FieldMask": _field_mask,
}
"""Messages that are one JSON value: a number of US dollars, an ISO 8601 time in UTC with milliseconds, joined paths."""
