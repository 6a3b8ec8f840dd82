"""A session's key and etag."""

from gateway.domain.ids import resolve_session
from gateway.domain.session import Session

SESSION = Session("V1StGXR8_Z5jdHi6B-myT", "default", "scripted/echo", 1, 1)


def test_the_key_leads_back_to_the_id() -> None:
    assert SESSION.key == "agent:default:V1StGXR8_Z5jdHi6B-myT"
    assert resolve_session(SESSION.key) == SESSION.session_id


def test_the_etag_follows_the_revision_and_nothing_else() -> None:
    assert SESSION._replace(revision=2).etag != SESSION.etag
    assert SESSION._replace(message_count=5, last_seq=9, updated_ms=7).etag == SESSION.etag
