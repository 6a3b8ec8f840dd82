"""Shared options and exit codes."""

import json
from pathlib import Path

import pytest

from agentspace.cli.options import Failure, Target, failure, run
from agentspace.client import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.unreachable("gone"), 3),
        (errors.build("UNAUTHENTICATED", "no"), 4),
        (errors.build("MISSING_SCOPE", "no", metadata={"scope": "keys"}), 4),
        (errors.build("UPSTREAM_AUTH", "no", turn_id="t"), 5),
        (errors.build("UPSTREAM_AUTH", "no"), 1),
        (errors.build("INTERNAL", ""), 1),
    ],
)
def test_every_error_has_its_code(error: errors.AgentSpaceError, code: int) -> None:
    assert failure(error).exit_code == code


def test_an_error_is_a_line_or_a_frame(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.build("SESSION_NOT_FOUND", "no such session", metadata={"sessionId": "x"})
    failure(error).show()
    failure(error, as_json=True).show()
    written = capsys.readouterr()
    assert written.err == "error: no such session (SESSION_NOT_FOUND)\n"
    frame = json.loads(written.out)
    assert (frame["type"], frame["code"], frame["metadata"]) == ("error", "SESSION_NOT_FOUND", {"sessionId": "x"})


def test_a_busy_sessions_way_out_is_a_command() -> None:
    busy = errors.build("STREAM_IN_PROGRESS", "wait, or send with onBusy", metadata={"sessionId": "s"})
    assert failure(busy).message == (
        "the session has a running turn; wait for its end, or run: agentspace cancel s (STREAM_IN_PROGRESS)"
    )


def test_run_turns_errors_and_ctrl_c_into_codes() -> None:
    target = Target(None, Path("/nonexistent"), as_json=False)

    async def fail() -> None:
        raise errors.build("INTERNAL", "x")

    async def leave() -> None:
        raise KeyboardInterrupt

    with pytest.raises(Failure):
        run(target, fail)
    with pytest.raises(SystemExit) as left:
        run(target, leave)
    assert left.value.code == 130
