"""`agentspace context`."""

from tests.agentspace.command import call, lines
from tests.agentspace.json_door import json_door

SECTION = {"name": "history", "content": "user: hi\x1b", "byteCount": 8, "tokenEstimate": 3, "costEstimate": 0.000009}
FRAME = {
    "type": "context.inspection",
    "sections": [SECTION],
    "totals": {"byteCount": 8, "tokenEstimate": 3, "costEstimate": 0.000009},
}


async def test_sections_and_their_text() -> None:
    async with json_door() as door:
        door.replies["context.inspect"] = FRAME
        shown = (await call("context", "s", "--url", door.url)).stdout.splitlines()
        assert shown[1].split() == ["history", "8", "3", "$0.000009"]
        assert shown[-1].split() == ["total", "8", "3", "$0.000009"]
        assert (await call("context", "s", "--full", "--url", door.url)).stdout.endswith("[history]\nuser: hi\n")
        [frame] = lines((await call("context", "s", "--json", "--url", door.url)).stdout)
        assert frame["sections"] == [SECTION]
