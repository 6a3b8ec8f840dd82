"""Plain GET requests."""

import asyncio

import pytest

from agentspace.cli import http
from tests.agentspace.json_door import json_door


async def test_status_and_object() -> None:
    async with json_door() as door:
        door.ready = (503, {"ready": False})
        assert await asyncio.to_thread(http.get, door.url, "/ready") == (503, {"ready": False})
        assert await asyncio.to_thread(http.get, door.url, "/nothing") == (404, {})


def test_nobody_answers() -> None:
    with pytest.raises(OSError, match="refused"):
        http.get("http://127.0.0.1:1", "/ready")


def test_what_is_missing() -> None:
    parts = [{"name": "storage", "ready": True}, {"name": "provider", "ready": False, "detail": "no key"}]
    assert http.missing({"parts": parts}) == {"provider": "no key"}
    assert http.missing({}) == {}
