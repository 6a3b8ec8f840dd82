"""packing.py: what is written is what protobuf would write, for every frame and whatever its size."""

import random

import pytest
from google.protobuf.message import Message

from agentspace.v1 import error_pb2, frame_pb2, gateway_service_pb2, turn_pb2
from agentspace.v1.gateway_service_pb2 import ChannelClosed, ConnectResponse
from gateway.rpc.connect import Delivery
from gateway.rpc.frames import FRAME_MEMBERS
from gateway.rpc.packing import pack


def by_protobuf(batch: list[Delivery]) -> ConnectResponse:
    response = ConnectResponse()
    for body, _, recipients in batch:
        item = response.channels.add()
        if isinstance(body, ChannelClosed):
            item.closed.CopyFrom(body)
        else:
            getattr(item.frame, FRAME_MEMBERS[type(body)]).CopyFrom(body)
        for channel, request_id in recipients:
            item.recipients.add(channel=channel, request_id=request_id)
    return response


@pytest.mark.parametrize("kind", FRAME_MEMBERS, ids=lambda kind: kind.__name__)
def test_every_frame_even_an_empty_one(kind: type[Message]) -> None:
    batch: list[Delivery] = [(kind(), 0, [(1, "a")])]
    assert ConnectResponse.FromString(pack(batch)) == by_protobuf(batch)


@pytest.mark.parametrize("size", [0, 1, 100, 110, 111, 112, 120, 126, 127, 128, 129, 16_383, 16_384, 3_000_000])
def test_every_size(size: int) -> None:
    batch: list[Delivery] = [(turn_pb2.TextDelta(delta="x" * size), 0, [(1, "a")])]
    assert ConnectResponse.FromString(pack(batch)) == by_protobuf(batch)


def test_no_one_many_and_long_recipients() -> None:
    body = turn_pb2.TextDelta(delta="ä")
    many = [(number, "r" * (number % 300)) for number in range(1, 2**20, 1009)]
    for recipients in ([], [(0, "")], [(2**40, "ü" * 128)], many):
        batch: list[Delivery] = [(body, 0, recipients)]
        assert ConnectResponse.FromString(pack(batch)) == by_protobuf(batch)


def test_batches_in_order() -> None:
    chance = random.Random(1)
    for _ in range(200):
        batch: list[Delivery] = []
        for _ in range(chance.randrange(8)):
            body: Message = chance.choice(
                [
                    turn_pb2.TextDelta(delta="x" * chance.randrange(300), turn_id="t", seq=chance.randrange(2**40)),
                    error_pb2.Error(message="m" * chance.randrange(300), metadata={"a": "b"}),
                    ChannelClosed(reason=gateway_service_pb2.CLOSE_REASON_RESTART),
                    frame_pb2.SessionUnwatched(session_id="s"),
                ]
            )
            recipients = [(chance.randrange(2**30), "r" * chance.randrange(3)) for _ in range(chance.randrange(1, 4))]
            batch.append((body, 0, recipients))
        assert ConnectResponse.FromString(pack(batch)) == by_protobuf(batch)
