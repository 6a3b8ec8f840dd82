"""AuditEvent: who did what with keys. Holds no secret and no message text."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One deed. `outcome` is "ok" or an error reason; `created_ms` is Unix milliseconds."""

    created_ms: int
    principal: str
    action: str
    subject: str
    outcome: str
    event_id: int = 0
