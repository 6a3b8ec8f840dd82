"""`agentspace chat`: one message, or a conversation at a terminal. Calls answer, and repl when there is no message."""

import sys
import threading

import click

from agentspace.cli import answer
from agentspace.cli.options import Failure, Target, client_options, run
from agentspace.client.conversation import Client

PIPE_SECONDS = 2.0
"""After how long to say what is being waited for."""
PIPE_NOTE = "[reading what is piped in; end it with Ctrl-D, or give no input with < /dev/null]"


@click.command()
@click.argument("message", required=False)
@click.option("-m", "--model", help="The model that answers; otherwise the session's, or the server's default.")
@click.option("-s", "--session", metavar="SESSION", help="Go on in this session, by id or key.")
@click.option("-c", "--continue", "continued", is_flag=True, help="Go on in the session used last.")
@client_options
def chat(target: Target, message: str | None, model: str | None, session: str | None, continued: bool) -> None:
    """Send MESSAGE and print the answer. Without MESSAGE, talk.

    Text piped in comes before MESSAGE. Ctrl-C cancels the answer, a second one leaves.
    """
    if session and continued:
        raise click.UsageError("--session and --continue exclude each other")
    content = join_input("" if sys.stdin.isatty() else read_piped(), message)
    if not content and not sys.stdin.isatty():
        raise click.UsageError("there is no message, neither as an argument nor piped in")

    async def work() -> None:
        server = target.server()
        async with Client(server.url, server.token) as client:
            chosen = await newest_session(client) if continued else session
            if not content:
                # The prompt needs a library that nothing else does.
                from agentspace.cli.repl import talk

                await talk(client, target, chosen, model)
                return
            printer = answer.Printer(target.as_json)
            outcome = await answer.ask(client, content, printer, sessionId=chosen, model=model)
            answer.raise_failure(outcome, as_json=target.as_json)
            if not (session or continued) and printer.terminal and not target.as_json:
                printer.note(f"session {outcome.session_id}; go on with: agentspace chat -c")

    run(target, work)


def read_piped() -> str:
    """What is piped in, to its end. A pipe that nobody closes looks like a server that does not answer: say so."""
    note = threading.Timer(PIPE_SECONDS, lambda: click.echo(PIPE_NOTE, err=True))
    note.daemon = True
    note.start()
    try:
        return sys.stdin.read()
    finally:
        note.cancel()


def join_input(piped: str, message: str | None) -> str:
    """What is sent: the piped text, an empty line, the argument; either may be missing."""
    return "\n\n".join(part for part in (piped.strip("\n"), message or "") if part.strip())


async def newest_session(client: Client) -> str:
    """The id of the session in which something happened last."""
    sessions = [session async for session in client.pages("session.list", "sessions", withoutSystemPrompts=True)]
    if not sessions:
        raise Failure("there is no session to continue")
    newest = max(sessions, key=lambda session: session.get("updatedAt") or session["createdAt"])
    return str(newest["sessionId"])
