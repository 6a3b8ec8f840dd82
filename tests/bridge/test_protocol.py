"""protocol.py without a socket."""

import json
from typing import Any

import pytest

from agentspace.v1 import gateway_service_pb2
from agentspace.v1.frame_pb2 import ServerFrame
from bridge import closing
from bridge.frames import Codec
from bridge.protocol import MAX_PENDING, Action, Close, Forward, Protocol, Send, negotiate
from tests.fixtures.deliveries import body_of

CODECS = {1: Codec(1), 2: Codec(2)}


def only(actions: list[Action]) -> Action:
    assert len(actions) == 1
    return actions[0]


def sent(action: Action) -> Any:
    assert isinstance(action, Send)
    return json.loads(action.text)


def ask(protocol: Protocol, request_id: str) -> Forward:
    action = only(protocol.receive(json.dumps({"type": "chat.send", "id": request_id, "content": "x"})))
    assert isinstance(action, Forward)
    return action


def tell(protocol: Protocol, request_id: str, frame: ServerFrame) -> None:
    protocol.answered(type(body_of(frame)), request_id)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], (1, "")),
        (["agentspace.v1"], (1, "agentspace.v1")),
        (["agentspace.v2"], (2, "agentspace.v2")),
        (["graphql", "agentspace.v2", "agentspace.v1"], (2, "agentspace.v2")),
        (["agentspace.v3"], None),
        (["AGENTSPACE.V1"], None),
    ],
)
def test_negotiation(offered: list[str], chosen: tuple[int, str] | None) -> None:
    assert negotiate(offered) == chosen


def test_good_frame_is_forwarded() -> None:
    assert ask(Protocol(CODECS[1]), "r").frame.chat_send.content == "x"


def test_bad_frame_is_answered() -> None:
    error = sent(only(Protocol(CODECS[2]).receive('{"type":"turn.get","id":"r","turnId":4}')))
    assert error == {
        "type": "error",
        "requestId": "r",
        "code": "INVALID_MESSAGE",
        "message": "turnId must be a string",
        "retryable": False,
        "metadata": {"field": "turnId", "expected": "a string"},
    }
    assert "requestId" not in sent(only(Protocol(CODECS[2]).receive("{")))


def test_level_1_hears_of_each_unanswered_request_when_the_gateway_is_lost() -> None:
    protocol = Protocol(CODECS[1])
    for request_id in ("a", "b", "b", "c"):
        ask(protocol, request_id)
    tell(protocol, "a", ServerFrame(chat_stream_start={}))
    tell(protocol, "b", ServerFrame(error={"code": 3}))
    tell(protocol, "c", ServerFrame(chat_stream_end={}))
    errors = [sent(action) for action in protocol.lost()]
    assert [(error["requestId"], error["code"]) for error in errors] == [("a", "LLM_ERROR"), ("b", "LLM_ERROR")]
    assert protocol.lost() == []


def test_level_2_is_closed_to_resume_when_the_gateway_is_lost() -> None:
    assert Protocol(CODECS[2]).lost() == [Close(closing.RESTART)]


def test_frame_that_cannot_be_forwarded_is_answered_once() -> None:
    protocol = Protocol(CODECS[1])
    error = sent(only(protocol.unreachable(ask(protocol, "r").frame)))
    assert (error["requestId"], protocol.lost()) == ("r", [])
    second = Protocol(CODECS[2])
    error = sent(only(second.unreachable(ask(second, "r").frame)))
    assert (error["code"], error["retryable"]) == ("GATEWAY_UNREACHABLE", True)


def test_unanswered_requests_are_bounded() -> None:
    protocol = Protocol(CODECS[1])
    for number in range(MAX_PENDING):
        ask(protocol, str(number))
    text = '{"type":"chat.send","id":"one more","content":"x"}'
    assert sent(only(protocol.receive(text)))["requestId"] == "one more"
    tell(protocol, "7", ServerFrame(chat_stream_end={}))
    ask(protocol, "one more")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (gateway_service_pb2.CLOSE_REASON_UNAUTHENTICATED, 4401),
        (gateway_service_pb2.CLOSE_REASON_RESTART, 1012),
        (gateway_service_pb2.CLOSE_REASON_PROTOCOL, 1011),
        (gateway_service_pb2.CLOSE_REASON_UNSPECIFIED, 1011),
    ],
)
def test_reasons_of_the_gateway(reason: Any, code: int) -> None:
    action = only(Protocol(CODECS[1]).closed(reason))
    assert isinstance(action, Close)
    assert action.closing.code == code
