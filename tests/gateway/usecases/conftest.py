"""The fixtures of tests/gateway/usecases/rooms.py."""

from tests.gateway.usecases.rooms import clock, live, sessions, store, talk

__all__ = ["clock", "live", "sessions", "store", "talk"]
