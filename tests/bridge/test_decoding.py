"""decoding.py: how JSON values fill a message."""

import pytest
from google.protobuf.api_pb2 import Api
from google.protobuf.wrappers_pb2 import BytesValue, UInt64Value

from agentspace.v1.session_service_pb2 import ListSessionsRequest, UpdateSessionRequest
from bridge.decoding import FrameError, compile_message, read_string


def test_nested_path_is_named() -> None:
    fill = compile_message(UpdateSessionRequest.DESCRIPTOR, 2, "a.")
    with pytest.raises(FrameError, match=r"a\.session\.model must be a string"):
        fill({"sessionId": "s", "session": {"model": 1}}, UpdateSessionRequest())


def test_level_1_value_replaces_what_the_client_says() -> None:
    message = ListSessionsRequest()
    compile_message(ListSessionsRequest.DESCRIPTOR, 1)({"pageSize": 5}, message)
    assert message.page_size == 1000


def test_unsigned_integers_have_their_own_range() -> None:
    fill = compile_message(UInt64Value.DESCRIPTOR, 1)
    message = UInt64Value()
    fill({"value": 2**64 - 1}, message)
    assert message.value == 2**64 - 1
    with pytest.raises(FrameError):
        fill({"value": -1}, message)


@pytest.mark.parametrize("descriptor", [BytesValue.DESCRIPTOR, Api.DESCRIPTOR])
def test_types_that_frames_cannot_carry_are_refused_when_compiled(descriptor: object) -> None:
    with pytest.raises(TypeError):
        compile_message(descriptor, 1)  # type: ignore[arg-type]


def test_repeated_strings_are_read_with_their_index() -> None:
    from google.protobuf.field_mask_pb2 import FieldMask

    fill = compile_message(FieldMask.DESCRIPTOR, 1)
    message = FieldMask()
    fill({"paths": ["a", "b"]}, message)
    assert list(message.paths) == ["a", "b"]
    with pytest.raises(FrameError, match=r"paths\[1\] must be a string"):
        fill({"paths": ["a", 1]}, message)
    with pytest.raises(FrameError, match="paths must be an array"):
        fill({"paths": "a"}, message)


def test_strings_hold_valid_unicode() -> None:
    assert read_string("grüße 🎉", "x") == "grüße 🎉"
    with pytest.raises(FrameError):
        read_string("\ud83c", "x")
