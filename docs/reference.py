"""Writes the reference at the end of protocol.md from the contract: `python docs/reference.py`. A test keeps it fresh.

Tables come from the descriptors and their comments, examples from the bridge's own codec.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from grpc_tools import protoc

from agentspace.v1 import annotations_pb2, error_pb2, turn_pb2
from agentspace.v1.frame_pb2 import ClientFrame, ServerFrame
from bridge import closing
from bridge.encoding import SPECIAL, enum_names, message_name, options
from bridge.frames import Codec
from gateway.rpc.status import grpc_code

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "protocol.md"
MARK = "<!-- Everything below is written by docs/reference.py. -->\n"
SPECIAL_TYPES = {
    "agentspace.v1.Money": "number, US dollars",
    "google.protobuf.Timestamp": "time",
    "google.protobuf.FieldMask": "string, comma-joined",
}
SAMPLES: dict[str, Any] = {
    "session_id": "V1StGXR8_Z5jdHi6B-myT",
    "session_key": "agent:default:V1StGXR8_Z5jdHi6B-myT",
    "forked_from": "",
    "turn_id": "turn_3kX9TzQmB7LrYw2cJ0aPd",
    "message_id": "msg_Qp4sVn8fHk1xGt6uRe5Wz",
    "answer_message_id": "msg_b2Nc7MdL0yEo9Ia3Xj8Kq",
    "keep_from_message_id": "msg_Qp4sVn8fHk1xGt6uRe5Wz",
    "content": "hello",
    "delta": "Hello",
    "text": "Hello",
    "model": "claude-sonnet-5-5",
    "agent_id": "default",
    "protocol": "agentspace.v2",
    "provider": "anthropic",
    "key": "sk-ant-...",
    "masked": "…6789",
    "page_token": "",
    "next_page_token": "",
    "idempotency_key": "",
    "etag": "1",
    "stop_reason": "end_turn",
    "price_version": "2026-11-20",
    "features": "watch",
    "scopes": "chat",
    "principal": "local",
    "paths": "title",
    "pico_usd": 45_000_000,
    "seconds": 1_790_000_000,
    "phase": turn_pb2.TURN_PHASE_STREAMING,
    "Turn.state": turn_pb2.TURN_STATE_COMPLETED,
    "TurnEnded.state": turn_pb2.TURN_STATE_COMPLETED,
}
"""Values by the name of a field, or of its message and the field."""


def comments() -> dict[str, str]:
    """What the .proto files say of every message, field and enum value, by full name."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "contract"
        files = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
        include = Path(protoc.__file__).parent / "_proto"
        protos = ROOT / "proto"
        code = protoc.main(["", f"-I{protos}", f"-I{include}", "--include_source_info", f"-o{out}", *files])
        assert code == 0
        contract = FileDescriptorSet.FromString(out.read_bytes())
    found = {}
    for file in contract.file:
        for place in file.source_code_info.location:
            path, name, at = list(place.path), file.package, file
            while len(path) >= 2 and (kind := {4: "message_type", 5: "enum_type"}.get(path[0]) if at is file else None):
                at = getattr(at, kind)[path[1]]
                name, path = f"{name}.{at.name}", path[2:]
            if at is not file and len(path) == 2 and path[0] == 2:
                name = f"{name}.{(at.field if hasattr(at, 'field') else at.value)[path[1]].name}"
                path = []
            if not path and place.leading_comments:
                found[name] = " ".join(place.leading_comments.split())
    return found


def samples(message: Message, depth: int = 0) -> None:
    """Fill a message with values that look real."""
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None and not field.has_presence:
            continue
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry or depth > 3:
                continue
            inner = getattr(message, field.name)
            if field.is_repeated:
                inner = inner.add()
            inner.SetInParent()
            samples(inner, depth + 1)
            continue
        value = _sample(field)
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)


def _sample(field: FieldDescriptor) -> Any:
    for name in (f"{field.containing_type.name}.{field.name}", field.name):
        if name in SAMPLES:
            return SAMPLES[name]
    if field.enum_type is not None:
        return field.enum_type.values[1].number
    if field.type == FieldDescriptor.TYPE_STRING:
        return "..."
    return field.type == FieldDescriptor.TYPE_BOOL or 1


def type_name(field: FieldDescriptor) -> str:
    """A field's type in JSON."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = type_name(field.message_type.fields_by_name["value"])
        return f"object of {inner}"
    if field.enum_type is not None:
        if field.enum_type.full_name == "agentspace.v1.ErrorReason":
            name = "a reason, see below"
        else:
            names = [name.lower() for number, name in sorted(enum_names(field.enum_type).items()) if number]
            name = ", ".join(f"`{value}`" for value in names)
    elif field.message_type is not None:
        full = message_name(field)
        name = SPECIAL_TYPES.get(full) or f"[{field.message_type.name}](#{field.message_type.name.lower()})"
    elif field.type == FieldDescriptor.TYPE_STRING:
        name = "string"
    else:
        name = "boolean" if field.type == FieldDescriptor.TYPE_BOOL else "number"
    return f"list of {name}" if field.is_repeated else name


def fields_table(message: Descriptor, said: dict[str, str], level: int = 1) -> Iterator[str]:
    """A table of a message's fields; none is shown below `level`."""
    if not message.fields:
        return
    yield "\n| Field | Type | Level | Meaning |\n|---|---|---|---|\n"
    for field in message.fields:
        option = options(field)
        note = " **Required.**" if option.required else ""
        note += " Left out when empty." if option.omit_empty else ""
        meaning = said.get(field.full_name, "").replace("|", "\\|")
        yield f"| `{field.json_name}` | {type_name(field)} | {max(option.level, level)} | {meaning}{note} |\n"


def values(roots: list[Descriptor]) -> list[Descriptor]:
    """The messages inside these, each once, in order of appearance."""
    found: dict[str, Descriptor] = {}
    waiting = list(roots)
    while waiting:
        for field in waiting.pop(0).fields:
            inner = field.message_type
            if inner is None or inner.full_name in SPECIAL:
                continue
            if inner.full_name not in found:
                waiting.append(inner)
                found[inner.full_name] = inner
    return [inner for inner in found.values() if not inner.GetOptions().map_entry]


def example(member: FieldDescriptor, frame: type[ClientFrame] | type[ServerFrame]) -> str:
    """A frame in JSON, on one line."""
    filled = frame()
    body = getattr(filled, member.name)
    body.SetInParent()
    if frame is ServerFrame:
        samples(body)
        # The server says hello before it is asked anything.
        text = Codec(2).encode(body, "" if member.name == "hello" else "1")
        assert text is not None
        return json.dumps(json.loads(text), ensure_ascii=False)
    type_ = member.GetOptions().Extensions[annotations_pb2.frame].type
    shown: dict[str, Any] = {"type": type_, "id": "1"}
    for field in member.message_type.fields:
        if options(field).required or field.name in ("session_id", "turn_id", "model", "title"):
            if field.name == "session_id" and "turnId" in shown:
                continue
            shown[field.json_name] = {"title": "..."} if field.message_type is not None else _sample(field)
    text = json.dumps(shown, ensure_ascii=False)
    Codec(2).decode(text)
    return text


def frames(frame: type[ClientFrame] | type[ServerFrame], said: dict[str, str]) -> Iterator[str]:
    """Every frame of one direction."""
    for member in frame.DESCRIPTOR.oneofs_by_name["body"].fields:
        option = member.GetOptions().Extensions[annotations_pb2.frame]
        assert member.message_type is not None
        no_id = " At level 1 it has no `requestId`." if option.level_1_anonymous else ""
        yield f"\n#### `{option.type}`\n\nLevel {option.level}. {said[member.full_name]}{no_id}\n"
        yield f"\n```json\n{example(member, frame)}\n```\n"
        yield from fields_table(member.message_type, said, option.level)


def reference() -> str:
    """The generated part of the page."""
    said = comments()
    parts = [MARK, "\n## Frames\n\n### From clients\n\nEvery frame has `type` and `id` beside these fields.\n"]
    parts += frames(ClientFrame, said)
    parts += ["\n### From the server\n\nEvery frame has `type` and, where it answers one, `requestId`.\n"]
    parts += frames(ServerFrame, said)
    parts.append("\n### Values\n")
    roots = [f.message_type for frame in (ClientFrame, ServerFrame) for f in frame.DESCRIPTOR.fields if f.message_type]
    for inner in values(roots):
        if inner.full_name in {root.full_name for root in roots}:
            continue
        parts += [f"\n#### {inner.name}\n\n{said[inner.full_name]}\n", *fields_table(inner, said)]
    parts.append("\n## Errors\n\n| Reason | gRPC code | At level 1 | Retryable | Meaning |\n|---|---|---|---|---|\n")
    for value in error_pb2.ErrorReason.DESCRIPTOR.values[1:]:
        option = value.GetOptions().Extensions[annotations_pb2.reason]
        meaning = said[f"agentspace.v1.ErrorReason.{value.name}"].replace("{", "`").replace("}", "`")
        retry = "yes" if option.retryable else "no"
        name = value.name.removeprefix("ERROR_REASON_")
        code = grpc_code(value.number).name
        parts.append(f"| `{name}` | `{code}` | `{option.level_1_code}` | {retry} | {meaning} |\n")
    parts.append("\n## Close codes\n\n| Code | Meaning | Connect again |\n|---|---|---|\n")
    parts += [f"| {it.code} | {it.reason} | {'yes' if it.reconnect else 'no'} |\n" for it in closing.TABLE]
    parts.append(
        "\nThe close frame's reason is the meaning. 1000 and 1001 come from clients as well, with a reason of theirs; "
        "1006 is never sent, only seen.\n"
    )
    return "".join(parts)


def main() -> None:
    """Write the page anew."""
    head = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    PAGE.write_text(head + reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
