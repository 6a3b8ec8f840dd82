"""encoding.py: how each kind of field looks in JSON."""

from typing import Any

import orjson
import pytest

from agentspace.v1 import error_pb2, frame_pb2, session_service_pb2, turn_pb2, usage_pb2
from agentspace.v1.frame_pb2 import ServerFrame
from bridge.encoding import compile_message, enum_names
from bridge.frames import Codec
from tests.fixtures.deliveries import body_of

V1 = Codec(1)
V2 = Codec(2)


def shown(codec: Codec, frame: ServerFrame) -> Any:
    text = codec.encode(body_of(frame), "r")
    assert text is not None
    return orjson.loads(text)


@pytest.mark.parametrize(
    ("pico", "written"),
    [
        (0, b"0"),
        (3 * 10**12, b"3"),
        (10**11, b"0.1"),
        (100_000, b"1e-7"),
        (1, b"1e-12"),
        (2**63 - 1, b"9223372.036854776"),
    ],
)
def test_money_is_a_number_of_dollars(pico: int, written: bytes) -> None:
    read = compile_message(usage_pb2.Cost.DESCRIPTOR, 1, original=True)
    value = read(usage_pb2.Cost(input_cost=usage_pb2.Money(pico_usd=pico)))["inputCost"]
    assert orjson.dumps(value) == written


@pytest.mark.parametrize(
    ("seconds", "nanos", "written"),
    [
        (1767323045, 678_999_999, "2026-01-02T03:04:05.678Z"),
        (0, 0, "1970-01-01T00:00:00.000Z"),
        (-1, 1_000_000, "1969-12-31T23:59:59.001Z"),
        (2**62, 0, "9999-12-31T23:59:59.000Z"),
        (-(2**62), 0, "0001-01-01T00:00:00.000Z"),
    ],
)
def test_time_has_milliseconds_and_z(seconds: int, nanos: int, written: str) -> None:
    turn = turn_pb2.Turn()
    turn.created_at.seconds = seconds
    turn.created_at.nanos = nanos
    assert compile_message(turn_pb2.Turn.DESCRIPTOR, 2, original=False)(turn)["createdAt"] == written


def test_enums_are_short_lower_case_names() -> None:
    turn = turn_pb2.Turn(state=turn_pb2.TURN_STATE_BUDGET_STOPPED)
    assert shown(V2, ServerFrame(turn_get={"turn": turn}))["turn"]["state"] == "budget_stopped"
    assert enum_names(turn_pb2.TurnPhase.DESCRIPTOR)[3] == "WAITING_FIRST_TOKEN"


def test_reasons_are_the_originals_codes_at_level_1() -> None:
    known = {"INVALID_MESSAGE", "SESSION_NOT_FOUND", "STREAM_IN_PROGRESS", "LLM_ERROR", "NOT_IMPLEMENTED"}
    for number in (*error_pb2.ErrorReason.values(), 9999):
        frame = ServerFrame(error=error_pb2.Error(code=number, message="m"))
        assert shown(V1, frame)["code"] in known
        assert shown(V2, frame)["code"] == (
            error_pb2.ErrorReason.Name(number)[13:] if 0 < number < 9999 else "INTERNAL"
        )


def test_error_leaves_out_what_is_empty() -> None:
    bare = ServerFrame(error=error_pb2.Error(code=3, message="m"))
    assert shown(V2, bare) == {
        "type": "error",
        "requestId": "r",
        "code": "STREAM_IN_PROGRESS",
        "message": "m",
        "retryable": False,
    }
    full = error_pb2.Error(code=3, execution=error_pb2.EXECUTION_MAY_HAVE_EXECUTED, metadata={"k": "v"}, seq=9)
    assert {"execution": "may_have_executed", "metadata": {"k": "v"}, "seq": 9}.items() <= shown(
        V2, ServerFrame(error=full)
    ).items()


def test_unset_messages_are_zeros_in_original_frames_and_null_elsewhere() -> None:
    for codec in (V1, V2):
        end = shown(codec, ServerFrame(chat_stream_end=turn_pb2.TurnEnded()))
        assert end["usage"]["totalTokens"] == end["cost"]["totalCost"] == 0
    assert shown(V2, ServerFrame(turn_get={}))["turn"] is None
    turn = shown(V2, ServerFrame(turn_get={"turn": turn_pb2.Turn()}))["turn"]
    assert (turn["usage"], turn["createdAt"], "startedAt" in turn, "error" in turn) == (None, None, False, False)


def test_lists_and_flags_are_written_when_empty() -> None:
    frame = ServerFrame(session_list=session_service_pb2.ListSessionsResponse())
    assert shown(V1, frame) == {"type": "session.list", "requestId": "r", "sessions": []}
    assert shown(V2, frame)["nextPageToken"] == ""


def test_every_server_frame_is_written() -> None:
    for field in frame_pb2.ServerFrame.DESCRIPTOR.oneofs_by_name["body"].fields:
        frame = ServerFrame()
        getattr(frame, field.name).SetInParent()
        assert shown(V2, frame)["requestId"] == "r"


def test_bytes_are_refused_when_compiled() -> None:
    from google.protobuf.wrappers_pb2 import BytesValue

    with pytest.raises(TypeError):
        compile_message(BytesValue.DESCRIPTOR, 1, original=False)
