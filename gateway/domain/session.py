"""Session: one conversation, without its messages."""

from typing import NamedTuple

from gateway.domain.ids import session_key


class Session(NamedTuple):
    """Times are Unix milliseconds; `deleted_ms` 0 means not deleted. `revision` rises with every change of the
    caller's own fields and is the etag. (`epoch`, `last_seq`) is the position of the last stored event."""

    session_id: str
    agent_id: str
    model: str
    created_ms: int
    updated_ms: int
    title: str = ""
    system_prompt: str = ""
    message_count: int = 0
    revision: int = 1
    epoch: int = 1
    last_seq: int = 0
    deleted_ms: int = 0
    forked_from: str = ""
    generation: int = 1

    @property
    def key(self) -> str:
        """`agent:{agentId}:{sessionId}`."""
        return session_key(self.agent_id, self.session_id)

    @property
    def etag(self) -> str:
        """Changes with every change of the caller's own fields."""
        return str(self.revision)
