"""JSON values to client messages: one decoder per message, compiled from the descriptors.

Called by frames.py. Strict: a boolean is no number, a number no string. Does no I/O and raises nothing but FrameError.
"""

import re
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from bridge.encoding import enum_names, message_name, options

Read = Callable[[Any, str], Any]
"""JSON value and its path in, value for the message out."""
Fill = Callable[[dict[str, Any], Any], None]
"""JSON object in, message filled."""

FIELD_MASK = "google.protobuf.FieldMask"
INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}


class FrameError(Exception):
    """A client frame that cannot be taken: always answered with INVALID_MESSAGE.

    field: the path of the offending field, for instance "session.title"; empty for the frame itself.
    expected: what belongs there. request_id: the frame's id, empty when it could not be read.
    """

    reason = "INVALID_MESSAGE"

    def __init__(self, field: str, expected: str, request_id: str = "", message: str = "") -> None:
        super().__init__(message or f"{field or 'the frame'} must be {expected}")
        self.message = message or f"{field or 'the frame'} must be {expected}"
        self.field = field
        self.expected = expected
        self.request_id = request_id


def compile_message(message: Descriptor, level: int, prefix: str = "") -> Fill:
    """Compile the decoder of a message: JSON object and empty message in, message filled.

    level: fields above it are ignored. prefix: the path of the message with a dot behind it, for error texts. Unknown
    fields are ignored and null is the same as absent. Raises FrameError without a request id.
    """
    plan = []
    fixed = []
    for field in message.fields:
        place = options(field)
        if place.level <= level:
            path = prefix + field.json_name
            plan.append((field.json_name, path, _assigner(field, level, path), place.required, _expected(field)))
        elif place.level_1_value:
            fixed.append((field.name, place.level_1_value))

    def fill(value: dict[str, Any], target: Any) -> None:
        for key, path, assign, required, expected in plan:
            item = value.get(key)
            if item is not None:
                assign(item, target)
            elif required:
                raise FrameError(path, expected, message=f"{path} is missing: it must be {expected}")
        for name, number in fixed:
            setattr(target, name, number)

    return fill


def compile_body(field: FieldDescriptor, level: int) -> Fill:
    """Compile the decoder of the message that a member of the frame's oneof holds; see compile_message."""
    assert field.message_type is not None, field.full_name
    return compile_message(field.message_type, level)


def read_string(value: Any, path: str) -> str:
    """Take a string of valid Unicode. Raises FrameError."""
    if not isinstance(value, str):
        raise FrameError(path, "a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise FrameError(path, "a string of valid Unicode, without lone surrogates") from None
    return value


def _assigner(field: FieldDescriptor, level: int, path: str) -> Callable[[Any, Any], None]:
    name = field.name
    if field.is_repeated:
        read = _reader(field)

        def extend(value: Any, target: Any) -> None:
            if not isinstance(value, list):
                raise FrameError(path, "an array")
            getattr(target, name).extend([read(item, f"{path}[{index}]") for index, item in enumerate(value)])

        return extend
    if field.message_type is not None and message_name(field) != FIELD_MASK:
        fill = compile_message(field.message_type, level, path + ".")

        def descend(value: Any, target: Any) -> None:
            if not isinstance(value, dict):
                raise FrameError(path, "an object")
            nested = getattr(target, name)
            nested.SetInParent()
            fill(value, nested)

        return descend
    read = _reader(field)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return lambda value, target: getattr(target, name).paths.extend(read(value, path))
    return lambda value, target: setattr(target, name, read(value, path))


def _reader(field: FieldDescriptor) -> Read:
    if field.type == FieldDescriptor.TYPE_STRING:
        return read_string
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _read_bool
    if field.enum_type is not None:
        return _enum_reader(field.enum_type)
    if field.type in INTEGERS:
        return _integer_reader(*INTEGERS[field.type])
    if message_name(field) == FIELD_MASK:
        return _read_field_mask
    raise TypeError(f"{field.full_name} has a type that client frames cannot carry")


def _read_bool(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise FrameError(path, "true or false")
    return value


def _read_field_mask(value: Any, path: str) -> list[str]:
    # The contract's names, whether in JSON's spelling or its own.
    names = (name.strip() for name in read_string(value, path).split(","))
    return [re.sub(r"([A-Z])", r"_\1", name).lower() for name in names if name]


def _integer_reader(lowest: int, highest: int) -> Read:
    def read(value: Any, path: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise FrameError(path, "an integer")
        if not lowest <= value <= highest:
            raise FrameError(path, f"an integer from {lowest} to {highest}")
        return value

    return read


def _enum_reader(enum: EnumDescriptor) -> Read:
    numbers = {name.lower(): number for number, name in enum_names(enum).items() if number}
    expected = "one of " + ", ".join(numbers)

    def read(value: Any, path: str) -> int:
        if not isinstance(value, str) or value not in numbers:
            raise FrameError(path, expected)
        return numbers[value]

    return read


def _expected(field: FieldDescriptor) -> str:
    if field.is_repeated:
        return "an array"
    if field.type == FieldDescriptor.TYPE_STRING:
        return "a string"
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true or false"
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return "an object"
    return "an integer" if field.type in INTEGERS else "a name"
