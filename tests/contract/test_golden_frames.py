"""The original's twelve frames, byte for meaning: golden/client is what it sent, golden/server what it must receive."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from agentspace.v1.annotations_pb2 import frame as frame_option
from agentspace.v1.frame_pb2 import ClientFrame, ServerFrame
from bridge.frames import Codec
from tests.fixtures.deliveries import body_of

GOLDEN = Path(__file__).parent / "golden"
CLIENT = sorted((GOLDEN / "client").iterdir())
SERVER = sorted((GOLDEN / "server").iterdir())


def exact(value: Any) -> str:
    """JSON text that tells 1 from true, for comparing."""
    return json.dumps(value, sort_keys=True)


def test_there_is_one_file_for_each_frame_of_level_1() -> None:
    for message, files in ((ClientFrame, CLIENT), (ServerFrame, SERVER)):
        fields = message.DESCRIPTOR.oneofs_by_name["body"].fields
        frames = [field.GetOptions().Extensions[frame_option] for field in fields]
        assert sorted(frame.type for frame in frames if frame.level == 1) == [file.stem for file in files]


@pytest.mark.parametrize("path", CLIENT, ids=lambda path: path.stem)
def test_client_frame(path: Path) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))
    expected = json_format.ParseDict(golden["message"], ClientFrame())
    assert Codec(1).decode(json.dumps(golden["frame"])) == expected


@pytest.mark.parametrize("path", SERVER, ids=lambda path: path.stem)
def test_server_frame(path: Path) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))
    message = json_format.ParseDict(golden["message"], ServerFrame())
    text = Codec(1).encode(body_of(message), golden["request_id"])
    assert text is not None
    assert exact(json.loads(text)) == exact(golden["frame"])


@pytest.mark.parametrize("path", SERVER, ids=lambda path: path.stem)
def test_level_2_shows_the_same_and_more(path: Path) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))
    message = json_format.ParseDict(golden["message"], ServerFrame())
    text = Codec(2).encode(body_of(message), golden["request_id"])
    assert text is not None
    changed = {"code"} if path.stem == "error" else set()
    assert golden["frame"].keys() - changed <= json.loads(text).keys()
