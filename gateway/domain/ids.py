"""Session keys and references. A session's key is `agent:{agentId}:{sessionId}`; requests may name a session by
either."""

import re

from gateway.domain.error import invalid, session_not_found

_REFERENCE = re.compile(r"(?:agent:[^:\x00-\x1f\x7f]{1,64}:)?([A-Za-z0-9_-]{1,64})")
_AGENT_ID = re.compile(r"[^:\x00-\x1f\x7f]{1,64}")
_SHOWN_CHARACTERS = 200
DEFAULT_AGENT = "default"


def session_key(agent_id: str, session_id: str) -> str:
    """The session's routing name; not a secret."""
    return f"agent:{agent_id}:{session_id}"


def resolve_session(reference: str) -> str:
    """The session id that an id or a key names. Raises INVALID_MESSAGE when it is empty, and SESSION_NOT_FOUND when it
    can be neither: whatever else a client took for one, there is no such session."""
    match = _REFERENCE.fullmatch(reference)
    if match is not None:
        return match[1]
    if not reference:
        raise invalid("sessionId", "a session id or a session key")
    raise session_not_found(reference[:_SHOWN_CHARACTERS])


def agent_id(given: str) -> str:
    """The agent id to use for what a caller gave; empty means `default`."""
    if not given:
        return DEFAULT_AGENT
    if _AGENT_ID.fullmatch(given) is None:
        raise invalid("agentId", "1 to 64 characters without a colon")
    return given
