"""Prints one answer as it arrives, and ends it on Ctrl-C. Called by chat and repl; calls the client."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

import click

from agentspace.cli import render
from agentspace.cli.options import INTERRUPTED, Failure, failure
from agentspace.client.conversation import Client
from agentspace.client.errors import AgentSpaceError
from agentspace.client.websocket import Frame, from_frame


@dataclass(slots=True)
class Printer:
    """Writes frames to stdout: text as it comes, or frames as JSON lines. Notes go to stderr.

    On a terminal, text is cleaned of control characters; into a pipe it goes as it is.
    """

    as_json: bool
    terminal: bool = field(default_factory=lambda: sys.stdout.isatty())
    line_open: bool = False

    def show(self, frame: Frame) -> None:
        """Print what the frame says."""
        kind = frame["type"]
        if kind == "connection.lost":
            self.note("connection lost, trying again")
        elif self.as_json:
            print(render.as_json(frame), flush=True)
        elif kind == "chat.stream.delta":
            text = render.clean(frame["delta"]) if self.terminal else frame["delta"]
            sys.stdout.write(text)
            sys.stdout.flush()
            self.line_open = not text.endswith("\n") if text else self.line_open
        elif kind in ("chat.stream.end", "error"):
            self.close_line()

    def close_line(self) -> None:
        """End an unfinished line."""
        if self.line_open:
            print(flush=True)
        self.line_open = False

    def note(self, text: str) -> None:
        """A remark beside the answer."""
        if self.terminal:
            self.close_line()
        click.echo(f"[{render.clean(text)}]", err=True)


@dataclass(slots=True)
class Outcome:
    """How a message fared. end: the last frame, chat.stream.end or error; empty if the reader left before it."""

    session_id: str = ""
    end: Frame = field(default_factory=dict)
    cancelled: bool = False


async def follow(client: Client, frames: AsyncIterator[Frame], printer: Printer) -> Outcome:
    """Print a chat's frames to its end. The first Ctrl-C cancels the turn, the second raises Failure with 130."""
    outcome = Outcome()
    turn_id = ""
    stop = asyncio.Event()
    quitting = asyncio.Event()

    def interrupted() -> None:
        (quitting if stop.is_set() else stop).set()

    async def read() -> None:
        nonlocal turn_id
        async for frame in frames:
            outcome.session_id = frame.get("sessionId") or outcome.session_id
            if frame["type"] == "chat.accepted":
                turn_id = frame["turnId"]
            printer.show(frame)
            if frame["type"] in ("chat.stream.end", "error"):
                outcome.end = frame

    async def cancel() -> None:
        await stop.wait()
        if not turn_id:
            quitting.set()
            return
        outcome.cancelled = True
        printer.note("cancelling; Ctrl-C again to leave")
        try:
            await client.request("turn.cancel", turnId=turn_id)
        except AgentSpaceError as error:
            printer.note(f"could not cancel: {error}")

    with _on_interrupt(interrupted):
        reading = asyncio.create_task(read())
        cancelling = asyncio.create_task(cancel())
        leaving = asyncio.create_task(quitting.wait())
        try:
            await asyncio.wait((reading, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise Failure("interrupted", INTERRUPTED)
            reading.result()
        finally:
            for task in (reading, cancelling, leaving):
                task.cancel()
            await asyncio.gather(reading, cancelling, leaving, return_exceptions=True)
            printer.close_line()
    return outcome


async def ask(client: Client, content: str, printer: Printer, **fields: str | None) -> Outcome:
    """Send a message and print its answer."""
    async with aclosing(client.chat(content, **fields)) as frames:
        return await follow(client, frames, printer)


def raise_failure(outcome: Outcome, *, as_json: bool) -> None:
    """Turn a failed or cancelled turn into the command's exit code."""
    if outcome.end.get("type") == "error":
        error = failure(from_frame(outcome.end))
        # The error frame is among the printed ones already.
        raise SystemExit(error.exit_code) if as_json else error
    if outcome.cancelled:
        raise SystemExit(INTERRUPTED)


@contextmanager
def _on_interrupt(handler: Callable[[], None]) -> Iterator[None]:
    """While inside, Ctrl-C calls the handler."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGINT, handler)
    except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or no such thing here
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
