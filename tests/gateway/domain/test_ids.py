"""Session references: an id or a key, nothing else."""

import pytest

from gateway.domain.error import GatewayError
from gateway.domain.ids import agent_id, resolve_session, session_key


@pytest.mark.parametrize("session_id", ["V1StGXR8_Z5jdHi6B-myT", "a", "x" * 64])
def test_id_and_key_name_the_same_session(session_id: str) -> None:
    assert resolve_session(session_id) == session_id
    assert resolve_session(session_key("default", session_id)) == session_id
    assert resolve_session(session_key("Ärzte Team 1", session_id)) == session_id


@pytest.mark.parametrize(
    "reference",
    ["", " ", "a b", "x" * 65, "agent:x", "agent::x", "agent:a:", "agent:a:b:c", "other:a:b", "a\n", "../a", "ä"],
)
def test_anything_else_is_refused(reference: str) -> None:
    with pytest.raises(GatewayError) as caught:
        resolve_session(reference, "keepFrom")
    assert caught.value.metadata["field"] == "keepFrom"


def test_an_agent_is_default_or_a_name_that_fits_a_key() -> None:
    assert agent_id("") == "default"
    assert agent_id("Ärzte Team 1") == "Ärzte Team 1"
    for wrong in ("a:b", "a\nb", "x" * 65):
        with pytest.raises(GatewayError, match="agentId"):
            agent_id(wrong)
