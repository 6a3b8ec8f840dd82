"""The conversation at a terminal. Called by chat when there is no message; calls answer for each message."""

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory
from prompt_toolkit.patch_stdout import patch_stdout

from agentspace.cli import answer, render
from agentspace.cli.options import Target, explained
from agentspace.client.conversation import Client
from agentspace.client.errors import AgentSpaceError, DeniedError
from agentspace.client.websocket import Frame

HELP = """/sessions  the sessions
/context   what the model would be sent next
/usage     tokens and cost of this session
/help      this
/quit      leave (or Ctrl-D)
Ctrl-C cancels an answer."""


async def talk(client: Client, target: Target, session_id: str | None, model: str | None) -> None:
    """Ask and answer until the reader leaves. With --json, answers are printed as frames."""
    target.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    prompt: PromptSession[str] = PromptSession(history=FileHistory(str(target.home / "history")))
    (target.home / "history").touch(mode=0o600)
    printer = answer.Printer(target.as_json)
    click.echo("Say something; /help lists the commands.", err=True)
    while True:
        try:
            with patch_stdout():
                said = (await prompt.prompt_async("> ")).strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if said == "/quit":
            return
        try:
            if said.startswith("/"):
                await command(client, said, session_id)
            elif said:
                session_id = await say(client, said, printer, session_id, model) or session_id
        except DeniedError:
            raise
        except AgentSpaceError as error:
            # The conversation goes on; the next message connects again.
            click.echo(f"error: {render.clean(explained(error))}", err=True)


async def say(client: Client, said: str, printer: answer.Printer, session_id: str | None, model: str | None) -> str:
    """Send one message and print its answer; the id of its session."""
    outcome = await answer.ask(client, said, printer, sessionId=session_id, model=model)
    if outcome.end.get("type") == "error":
        click.echo(f"error: {render.clean(outcome.end['message'])} ({outcome.end['code']})", err=True)
    elif outcome.end:
        printer.note(render.end_line(outcome.end))
    return outcome.session_id


async def command(client: Client, said: str, session_id: str | None) -> None:
    """Run a line that begins with a slash."""
    match said:
        case "/sessions":
            print(render.sessions_table((await client.request("session.list"))["sessions"]))
        case "/context" | "/usage" if session_id is None:
            click.echo("There is no session yet.", err=True)
        case "/context":
            print(render.context_table(await client.request("context.inspect", sessionId=session_id)))
        case "/usage":
            frame: Frame = await client.request("usage.query", sessionId=session_id)
            print(render.usage_table(frame))
        case _:
            print(HELP)
