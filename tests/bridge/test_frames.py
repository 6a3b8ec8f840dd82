"""frames.py: text in, frame out and back; whatever a client sends, nothing but FrameError comes of it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentspace.v1.error_pb2 import Error
from agentspace.v1.frame_pb2 import ClientFrame, ServerFrame
from agentspace.v1.turn_pb2 import Heartbeat, TextDelta
from bridge.decoding import FrameError
from bridge.frames import Codec

V1 = Codec(1)
V2 = Codec(2)
TYPES = sorted(V2._decoders)
FIELDS = sorted({field.json_name for body in ClientFrame.DESCRIPTOR.fields[1:] for field in body.message_type.fields})


def refused(codec: Codec, text: str | bytes) -> FrameError:
    with pytest.raises(FrameError) as caught:
        codec.decode(text)
    return caught.value


def test_chat_send_is_read() -> None:
    frame = V1.decode('{"type":"chat.send","id":"r1","content":"héllo","model":null,"extra":{"a":[]}}')
    assert frame.id == "r1"
    assert frame.WhichOneof("body") == "chat_send"
    assert (frame.chat_send.content, frame.chat_send.model, frame.chat_send.session_id) == ("héllo", "", "")


def test_frame_without_fields_keeps_its_body() -> None:
    assert V2.decode('{"type":"key.list","id":""}').WhichOneof("body") == "key_list"


@pytest.mark.parametrize(
    ("text", "field", "request_id", "words"),
    [
        ("", "", "", "not valid JSON"),
        ("{", "", "", "not valid JSON"),
        ("[" * 30_000, "", "", "not valid JSON"),
        ('{"id":"a","x":' + "[" * 30_000 + "]" * 30_000 + "}", "", "", "not valid JSON"),
        ("9" * 5000, "", "", "must be a JSON object"),
        ('{"id":"a","type":"session.list","x":NaN}', "", "", "not valid JSON"),
        ("[]", "", "", "must be a JSON object"),
        ("3", "", "", "must be a JSON object"),
        ("null", "", "", "must be a JSON object"),
        ('"text"', "", "", "must be a JSON object"),
        (b"\xff\xfe", "", "", "not valid JSON"),
        ("{}", "id", "", "id is missing"),
        ('{"type":"session.list"}', "id", "", "id is missing"),
        ('{"type":"session.list","id":7}', "id", "", "id must be a string"),
        ('{"type":"session.list","id":"' + "é" * 257 + '"}', "id", "", "at most 256 characters"),
        ('{"type":"session.list","id":null}', "id", "", "id is missing"),
        ('{"type":"session.list","id":"\\ud800"}', "id", "", "valid Unicode"),
        ('{"id":"a"}', "type", "a", "type is missing"),
        ('{"id":"a","type":[]}', "type", "a", "type must be a string"),
        ('{"id":"a","type":{"b":1}}', "type", "a", "type must be a string"),
        ('{"id":"a","type":true}', "type", "a", "type must be a string"),
        ('{"id":"a","type":"nope"}', "type", "a", 'unknown type "nope"'),
        ('{"id":"a","type":"no\\npe"}', "type", "a", "unknown type"),
        ('{"id":"a","type":"\\ud800"}', "type", "a", "unknown type"),
        ('{"id":"a","type":"session.watch","sessionId":"s"}', "type", "a", "unknown type"),
        ('{"id":"a","type":"chat.send"}', "content", "a", "content is missing"),
        ('{"id":"a","type":"chat.send","content":null}', "content", "a", "content is missing"),
        ('{"id":"a","type":"chat.send","content":1}', "content", "a", "content must be a string"),
        ('{"id":"a","type":"chat.send","content":["x"]}', "content", "a", "content must be a string"),
        ('{"id":"a","type":"chat.send","content":"\\udfff"}', "content", "a", "lone surrogates"),
        ('{"id":"a","type":"chat.send","content":"x","sessionId":false}', "sessionId", "a", "sessionId must be"),
        ('{"id":"a","type":"context.inspect"}', "sessionId", "a", "sessionId is missing"),
    ],
)
def test_bad_frame_is_named(text: str | bytes, field: str, request_id: str, words: str) -> None:
    error = refused(V1, text)
    assert (error.field, error.request_id) == (field, request_id)
    assert words in error.message
    assert error.expected


@pytest.mark.parametrize(
    ("fields", "field", "expected"),
    [
        ('"type":"session.watch","sessionId":"s","afterSeq":true', "afterSeq", "an integer"),
        ('"type":"session.watch","sessionId":"s","afterSeq":"7"', "afterSeq", "an integer"),
        ('"type":"session.watch","sessionId":"s","afterSeq":1.5', "afterSeq", "an integer"),
        (
            '"type":"session.watch","sessionId":"s","afterSeq":1e30',
            "afterSeq",
            f"an integer from {-(2**63)} to {2**63 - 1}",
        ),
        ('"type":"session.list","pageSize":2147483648', "pageSize", f"an integer from {-(2**31)} to {2**31 - 1}"),
        ('"type":"session.list","deleted":1', "deleted", "true or false"),
        ('"type":"chat.send","content":"x","onBusy":"later"', "onBusy", "one of reject, queue, interrupt"),
        ('"type":"chat.send","content":"x","onBusy":[]', "onBusy", "one of reject, queue, interrupt"),
        ('"type":"session.update","sessionId":"s"', "session", "an object"),
        ('"type":"session.update","sessionId":"s","session":[]', "session", "an object"),
        ('"type":"session.update","sessionId":"s","session":{"title":1}', "session.title", "a string"),
        ('"type":"session.update","sessionId":"s","session":{},"updateMask":["title"]', "updateMask", "a string"),
    ],
)
def test_level_2_field_is_checked(fields: str, field: str, expected: str) -> None:
    error = refused(V2, '{"id":"a",' + fields + "}")
    assert (error.field, error.expected, error.request_id) == (field, expected, "a")


def test_level_2_values_arrive() -> None:
    watch = V2.decode('{"id":"a","type":"session.watch","sessionId":"s","afterSeq":0,"epoch":2.0}').session_watch
    assert (watch.HasField("after_seq"), watch.after_seq, watch.epoch) == (True, 0, 2)
    assert not V2.decode('{"id":"a","type":"session.watch","sessionId":"s"}').session_watch.HasField("after_seq")
    send = V2.decode('{"id":"a","type":"chat.send","content":"x","onBusy":"queue","idempotencyKey":"k"}').chat_send
    assert (send.on_busy, send.idempotency_key) == (2, "k")
    update = V2.decode(
        '{"id":"a","type":"session.update","sessionId":"s","session":{"title":"t"},"updateMask":"title, systemPrompt"}'
    ).session_update
    assert (update.session.title, list(update.update_mask.paths)) == ("t", ["title", "system_prompt"])
    assert V2.decode('{"id":"a","type":"session.update","sessionId":"s","session":{}}').session_update.HasField(
        "session"
    )


def test_level_1_ignores_fields_of_level_2() -> None:
    send = V1.decode('{"id":"a","type":"chat.send","content":"x","onBusy":7,"idempotencyKey":[]}').chat_send
    assert (send.on_busy, send.idempotency_key) == (0, "")
    assert V1.decode('{"id":"a","type":"session.list","pageSize":"x"}').session_list.page_size == 1000
    assert V2.decode('{"id":"a","type":"session.list"}').session_list.page_size == 0


def test_last_of_duplicate_keys_wins() -> None:
    assert V1.decode('{"id":"a","id":"b","type":"session.list"}').id == "b"


def test_lone_surrogate_in_an_ignored_field_is_ignored() -> None:
    assert V1.decode('{"id":"a","type":"session.list","x":"\\ud800"}').id == "a"


@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_of_any_length_is_json(sign: str) -> None:
    number = sign + "9" * 5000
    assert V1.decode(f'{{"id":"a","type":"session.list","x":{number}}}').id == "a"
    error = refused(V2, f'{{"id":"a","type":"session.list","pageSize":{number}}}')
    assert (error.field, error.expected) == ("pageSize", f"an integer from {-(2**31)} to {2**31 - 1}")
    assert refused(V1, f'{{"id":{number},"type":"session.list"}}').field == "id"


def test_recipients_share_a_tail() -> None:
    frame = ServerFrame(chat_stream_delta=TextDelta(delta='a"\n', turn_id="t", epoch=1, from_seq=2, seq=3))
    tail = V1.encode_tail(frame.chat_stream_delta)
    assert tail is not None
    for request_id in ("r1", 'r"2', "ü"):
        assert json.loads(V1.join(tail, request_id)) == {
            "type": "chat.stream.delta",
            "requestId": request_id,
            "delta": 'a"\n',
        }
    assert V1.encode(frame.chat_stream_delta, "r1") == V1.join(tail, "r1")


def test_frame_of_a_higher_level_is_not_written() -> None:
    heartbeat = Heartbeat(session_id="s")
    assert V1.encode(heartbeat, "r") is None
    assert V2.encode(heartbeat, "r") is not None
    assert V2.encode(ServerFrame(), "r") is None


def test_error_without_request_has_no_request_id() -> None:
    text = V1.encode(Error(code=1, message="m"), "")
    assert text is not None
    assert json.loads(text) == {"type": "error", "code": "INVALID_MESSAGE", "message": "m"}


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(exclude_categories=())), st.just("r1")
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from([*FIELDS, "id", "zzz"]), VALUES, max_size=6)


@settings(max_examples=400, deadline=None)
@given(fields=OBJECTS, kind=st.sampled_from(TYPES) | VALUES, request_id=st.text() | VALUES)
def test_any_object_is_read_or_refused(fields: dict[str, Any], kind: Any, request_id: Any) -> None:
    text = json.dumps({**fields, "type": kind, "id": request_id})
    for codec in (V1, V2):
        try:
            frame = codec.decode(text)
        except FrameError as error:
            assert error.request_id in ("", request_id)
            Error(message=error.message).SerializeToString()
        else:
            frame.SerializeToString()


@settings(max_examples=300, deadline=None)
@given(text=st.text() | st.binary())
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    try:
        V2.decode(text)
    except FrameError as error:
        assert error.message
