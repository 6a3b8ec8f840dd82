"""The command `agentspace`: its tree. Entry point of the package; loads a command's module when it is used.

`agentspace --help` must be quick, so this module imports click and nothing else of weight.
"""

import importlib
import io
import os
import sys
from dataclasses import dataclass

import click

EPILOG = """\b
Exit codes:
  0    done
  1    it failed
  2    the command line is wrong
  3    no server can be reached
  4    the token is missing, wrong, or lacks a right
  5    the turn failed
  130  Ctrl-C

\b
Environment:
  AGENTSPACE_HOME       the folder with everything in it (~/.agentspace)
  AGENTSPACE_URL        the server to talk to, instead of the one the home names
  AGENTSPACE_TOKEN      the bearer token to send
  AGENTSPACE_MODEL      the default model
  AGENTSPACE_PORT, AGENTSPACE_GRPC_PORT   where `up` listens
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: the module and the object that hold it, and its line in the help."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "up": Entry("up", "up", "Start the gateway and the bridge, and stay."),
    "chat": Entry("chat", "chat", "Send a message, or talk."),
    "attach": Entry("attach", "attach", "Watch a session live."),
    "cancel": Entry("cancel", "cancel", "Cancel what a session is doing."),
    "sessions": Entry("sessions", "sessions", "List, show and remove sessions."),
    "context": Entry("context", "context", "Show what the model would be sent next."),
    "usage": Entry("usage", "usage", "Show tokens and cost."),
    "keys": Entry("keys", "keys", "Keep provider keys."),
    "audit": Entry("audit", "audit", "Show who did what with keys."),
    "doctor": Entry("doctor", "doctor", "Look for what is wrong."),
    "paths": Entry("paths", "paths", "Show where everything is."),
    "completion": Entry("completion", "completion", "Print a shell's completion script."),
}


class Tree(click.Group):
    """The group of all commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"agentspace.cli.{entry.module}")
        command: click.Command = getattr(module, entry.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands' lines of the help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.command(cls=Tree, name="agentspace", epilog=EPILOG)
@click.version_option(package_name="agentspace-gateway", message="%(version)s")
def cli() -> None:
    """The durable home of conversations with language models."""


def settle_streams() -> None:
    """No stream is missing, and none fails over a character: what cannot be read or shown is replaced."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            # It has the number of the one that was closed; so it is that of the processes of `up`, too.
            os.set_inheritable(descriptor, True)
            stream = os.fdopen(descriptor, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def main() -> None:
    """Run the command line and leave with one of the exit codes of the help."""
    settle_streams()
    try:
        code = cli.main(prog_name="agentspace", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
