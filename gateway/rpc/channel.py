"""Channel and Stream: one client connection of a Connect call, and one of its open requests. Used by connect."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from agentspace.v1 import frame_pb2
from gateway.domain.access import Principal
from gateway.rpc.methods import Feed
from gateway.rpc.pace import LATER, SOON

ANSWERS_AT_ONCE = 4
"""How many requests of a channel are worked on whose answers may be large: these wait in memory, window or not."""


class Woken(Protocol):
    """Who collects what streams have: the connection they belong to."""

    awake: "dict[Stream, None]"
    haste: int
    on_ready: Callable[[int], None]


class Channel:
    """One client connection."""

    __slots__ = (
        "answering",
        "caller",
        "held",
        "held_bytes",
        "level",
        "number",
        "reads",
        "streams",
        "tasks",
        "unacknowledged",
        "window",
    )

    def __init__(self, number: int, caller: Principal, level: int, window: int) -> None:
        self.number = number
        self.caller = caller
        self.level = level
        self.window = window
        self.unacknowledged = 0
        self.streams: set[Stream] = set()
        """Requests that a feed answers, those whose feed is still to come included."""
        self.tasks: set[asyncio.Task[None]] = set()
        """Requests that one message answers."""
        self.reads: set[asyncio.Task[None]] = set()
        """Those of the tasks that may end with the channel."""
        self.answering: set[asyncio.Task[None] | Stream] = set()
        """Requests whose first answer may be large and has not been collected, or is not there yet."""
        self.held: deque[tuple[frame_pb2.ClientFrame, int]] = deque()
        """Requests that wait, with their sizes."""
        self.held_bytes = 0

    @property
    def full(self) -> bool:
        """What is on its way fills the window."""
        return self.unacknowledged >= self.window

    @property
    def busy(self) -> bool:
        """What it asks has to wait."""
        return self.full or len(self.answering) >= ANSWERS_AT_ONCE

    @property
    def requests(self) -> int:
        """How many are open, those held back included."""
        return len(self.tasks) + len(self.streams) + len(self.held)


class Stream:
    """One open request of a channel that a feed answers."""

    __slots__ = ("channel", "connection", "feed", "recipient", "watched")

    def __init__(self, connection: Woken, channel: Channel, request_id: str, watched: str) -> None:
        self.connection = connection
        self.channel = channel
        self.recipient = channel.number, request_id
        self.watched = watched
        self.feed: Feed | None = None

    def wake(self, soon: bool) -> None:
        """There may be something to take. Called for every delta."""
        connection = self.connection
        connection.awake[self] = None
        haste = SOON if soon else LATER
        if connection.haste < haste:
            connection.haste = haste
            connection.on_ready(haste)
