"""Audit events are values, numbered by the database."""

from gateway.domain.audit import AuditEvent


def test_an_event_has_no_number_before_it_is_stored() -> None:
    assert AuditEvent(1, "operator", "key.put", "anthropic", "ok").event_id == 0
