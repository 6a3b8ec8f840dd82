"""`agentspace attach`: watch a session live from another terminal. Calls the client's watch."""

import sys
from contextlib import aclosing

import click

from agentspace.cli import render
from agentspace.cli.answer import Printer
from agentspace.cli.options import Target, client_options, run
from agentspace.client.conversation import Client
from agentspace.client.websocket import Frame


@click.command()
@click.argument("session")
@client_options
def attach(target: Target, session: str) -> None:
    """Watch SESSION live: what was said, and what is said from now on. Ctrl-C leaves; nothing is cancelled."""

    async def work() -> None:
        server = target.server()
        printer = Printer(target.as_json)
        async with (
            Client(server.url, server.token) as client,
            aclosing(client.watch(session)) as frames,
        ):
            async for frame in frames:
                show(printer, frame)

    run(target, work)


def show(printer: Printer, frame: Frame) -> None:
    """Print one frame of a watch."""
    if printer.as_json:
        printer.show(frame)
        return
    match frame["type"]:
        case "session.snapshot":
            for message in frame["messages"]:
                said(printer, message)
            active = frame.get("activeTurn")
            if active:
                text = render.message_text(active)
                sys.stdout.write(text)
                sys.stdout.flush()
                printer.line_open = bool(text)
        case "session.reset":
            printer.note(f"starting again: {frame['reason']}")
        case "chat.message":
            said(printer, frame["message"])
        case "chat.stream.end":
            printer.show(frame)
            printer.note(render.end_line(frame))
        case "error":
            printer.show(frame)
            printer.note(f"{frame['message']} ({frame['code']})")
        case _:
            printer.show(frame)


def said(printer: Printer, message: Frame) -> None:
    """Print a finished message."""
    printer.close_line()
    mark = "> " if message["role"] == "user" else ""
    print(mark + render.message_text(message), flush=True)
