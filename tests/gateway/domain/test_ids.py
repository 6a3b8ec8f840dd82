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
    [" ", "a b", "x" * 65, "agent:x", "agent::x", "agent:a:", "agent:a:b:c", "other:a:b", "a\n", "../a", "ä"],
)
def test_anything_else_names_no_session(reference: str) -> None:
    with pytest.raises(GatewayError) as caught:
        resolve_session(reference)
    assert (caught.value.code, caught.value.metadata["sessionId"]) == ("SESSION_NOT_FOUND", reference)


def test_a_name_must_be_given() -> None:
    with pytest.raises(GatewayError) as caught:
        resolve_session("")
    assert (caught.value.code, caught.value.metadata["field"]) == ("INVALID_MESSAGE", "sessionId")


def test_no_more_of_a_name_is_repeated_than_anybody_reads() -> None:
    with pytest.raises(GatewayError) as caught:
        resolve_session("!" * 1_000_000)
    assert len(caught.value.message) < 300


def test_an_agent_is_default_or_a_name_that_fits_a_key() -> None:
    assert agent_id("") == "default"
    assert agent_id("Ärzte Team 1") == "Ärzte Team 1"
    for wrong in ("a:b", "a\nb", "x" * 65):
        with pytest.raises(GatewayError, match="agentId"):
            agent_id(wrong)
