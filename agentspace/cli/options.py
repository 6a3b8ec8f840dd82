"""The options commands share, and what running a command against a server means. Called by the commands."""

import asyncio
import functools
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from agentspace.client import discovery
from agentspace.client.errors import AgentSpaceError, DeniedError, UnreachableError

Command = TypeVar("Command", bound=Callable[..., Any])

FAILED, UNREACHABLE, DENIED, TURN_FAILED, INTERRUPTED = 1, 3, 4, 5, 130


@dataclass(frozen=True, slots=True)
class Target:
    """What the shared options say. named_home: the home that was named, if one was. as_json: print frames instead of
    text."""

    url: str | None
    named_home: Path | None
    as_json: bool

    @property
    def home(self) -> Path:
        """The home folder."""
        return discovery.home_folder(self.named_home)

    def server(self) -> discovery.Server:
        """The server to talk to. Raises UnreachableError when none runs for a home that was named."""
        try:
            return discovery.find_server(self.url, self.named_home)
        except ValueError as error:
            raise click.UsageError(str(error)) from error


class Failure(click.ClickException):
    """An error that ends the command with an exit code of the help."""

    def __init__(self, message: str, code: int = FAILED, frame: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]
        self._frame = frame

    def show(self, file: Any = None) -> None:
        """One line on stderr; with --json the error frame on stdout."""
        if self._frame is not None:
            print(json.dumps(self._frame, ensure_ascii=False), flush=True)
        else:
            click.echo(f"error: {self.format_message()}", err=True)


def home_option(command: Command) -> Command:
    """Adds --home."""
    option = click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        help="The folder with everything in it.  [env: AGENTSPACE_HOME; default: ~/.agentspace]",
    )
    return option(command)


def json_option(command: Command) -> Command:
    """Adds --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON: one object, or one a line.")(command)


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --url, --home and --json, and hands the command a Target as its first argument."""

    @home_option
    @json_option
    @click.option("--url", help="The server, for instance http://127.0.0.1:3271.  [env: AGENTSPACE_URL]")
    @functools.wraps(command)
    def wrapped(*args: Any, url: str | None, home: Path | None, as_json: bool, **kwargs: Any) -> Any:
        return command(Target(url, home, as_json), *args, **kwargs)

    return wrapped


def run(target: Target, work: Callable[[], Awaitable[None]]) -> None:
    """Run a command's coroutine; the client's errors become exit codes."""

    async def main() -> None:
        await work()

    try:
        asyncio.run(main())
    except AgentSpaceError as error:
        raise failure(error, as_json=target.as_json) from error
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def explained(error: AgentSpaceError) -> str:
    """What an error says, in terms of the command line."""
    message = error.message or error.reason
    if error.reason == "STREAM_IN_PROGRESS":
        session = error.metadata.get("sessionId", "SESSION")
        message = f"the session has a running turn; wait for its end, or run: agentspace cancel {session}"
    return f"{message} ({error.reason})"


def failure(error: AgentSpaceError, *, as_json: bool = False) -> Failure:
    """The end of a command that met an error of the client."""
    frame = {
        "type": "error",
        "code": error.reason,
        "message": error.message,
        "retryable": error.retryable,
        "metadata": error.metadata,
    }
    message = explained(error)
    if isinstance(error, UnreachableError):
        hint = "; is `agentspace up` running?" if error.retryable and not error.turn_id else ""
        return Failure(f"{error.message}{hint}", UNREACHABLE, frame if as_json else None)
    if isinstance(error, DeniedError):
        scope = error.metadata.get("scope")
        hint = f"; the scope needed is {scope}" if scope else ""
        return Failure(f"{message}{hint}", DENIED, frame if as_json else None)
    return Failure(message, TURN_FAILED if error.turn_id else FAILED, frame if as_json else None)
