"""`agentspace cancel`."""

from tests.agentspace.command import call, lines
from tests.agentspace.json_door import SESSION, TURN, json_door


async def test_it_cancels_what_the_session_is_doing() -> None:
    async with json_door() as door:
        door.run_turn()
        shown = await call("cancel", SESSION, "--url", door.url)
        assert (shown.exit_code, shown.stdout) == (0, f"cancelled {TURN}\n")
        assert (door.received[-1]["type"], door.received[-1]["sessionId"]) == ("turn.cancel", SESSION)
        [frame] = lines((await call("cancel", SESSION, "--json", "--url", door.url)).stdout)
        assert frame["turns"][0]["state"] == "cancelled"


async def test_a_session_at_rest_is_no_error() -> None:
    async with json_door() as door:
        shown = await call("cancel", SESSION, "--url", door.url)
    assert (shown.exit_code, shown.stdout) == (0, "no turn was running\n")
