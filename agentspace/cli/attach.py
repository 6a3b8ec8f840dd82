"""`agentspace attach`: watch a session live from another terminal. Calls the client's watch."""

import sys
from collections.abc import Mapping
from contextlib import aclosing

import click

from agentspace.cli import render
from agentspace.cli.answer import Printer
from agentspace.cli.options import Target, client_options, run
from agentspace.client.conversation import Client
from agentspace.client.errors import AgentSpaceError
from agentspace.client.websocket import Frame

SHOWN_TURNS = 200
"""At least as many as a snapshot's messages and a queue can be of."""
RESETS = {
    "epoch_changed": "the server lost what came last in a crash, or the history was replaced; starting again",
    "position_ahead": "the server has less of the session than was shown; starting again",
    "epoch_unknown": "the server cannot tell what was shown; starting again",
}
"""What to say of a reset's reason."""


@click.command()
@click.argument("session")
@client_options
def attach(target: Target, session: str) -> None:
    """Watch SESSION live: what was said, and what is said from now on. Ctrl-C leaves; nothing is cancelled."""

    async def work() -> None:
        server = target.server()
        watcher = Watcher(Printer(target.as_json))
        async with (
            Client(server.url, server.token) as client,
            # Not the same connection: its reader waits while frames of the watch are waiting for theirs.
            Client(server.url, server.token) as asking,
            aclosing(client.watch(session)) as frames,
        ):
            async for frame in frames:
                if frame["type"] == "session.snapshot" and not target.as_json:
                    watcher.turns = await newest_turns(asking, session)
                watcher.show(frame)

    run(target, work)


async def newest_turns(client: Client, session: str) -> dict[str, Frame]:
    """The session's turns by id; none when they cannot be had, since they only add remarks."""
    try:
        page = await client.request("turn.list", sessionId=session, pageSize=SHOWN_TURNS)
    except AgentSpaceError:
        return {}
    return {turn["turnId"]: turn for turn in page["turns"]}


class Watcher:
    """Prints the frames of a watch. turns: those of the next snapshot that are known, by id."""

    def __init__(self, printer: Printer) -> None:
        self.turns: Mapping[str, Frame] = {}
        self._printer = printer
        self._running = ""
        self._reset = ""

    def show(self, frame: Frame) -> None:
        """Print one frame."""
        printer = self._printer
        if printer.as_json:
            printer.show(frame)
            return
        match frame["type"]:
            case "session.snapshot":
                self._snapshot(frame)
            case "session.reset":
                self._reset = frame["reason"]
            case "chat.message":
                self._said(frame["message"], {})
            case "chat.stream.start":
                self._running = frame["turnId"]
            case "chat.stream.end":
                self._running = ""
                printer.show(frame)
                printer.note(render.end_line(frame))
            case "error":
                self._running = ""
                printer.show(frame)
                printer.note(f"{frame['message']} ({frame['code']})")
            case _:
                printer.show(frame)

    def _snapshot(self, frame: Frame) -> None:
        printer = self._printer
        if self._reset:
            interrupted = self.turns.get(self._running, {}).get("state") == "interrupted"
            reason = RESETS.get(self._reset, f"starting again: {self._reset}")
            printer.note(render.ENDINGS["interrupted"] if interrupted else reason)
        for message in frame["messages"]:
            self._said(message, self.turns)
        active = frame.get("activeTurn") or {}
        self._running, self._reset = active.get("turnId", ""), ""
        if active:
            text = render.message_text(active)
            sys.stdout.write(text)
            sys.stdout.flush()
            printer.line_open = bool(text)

    def _said(self, message: Frame, turns: Mapping[str, Frame]) -> None:
        """Print a finished message."""
        self._printer.close_line()
        mark = "> " if message["role"] == "user" else ""
        print(mark + render.message_text(message), flush=True)
        if how := render.ending(message, turns):
            self._printer.note(how)
