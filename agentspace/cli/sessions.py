"""`agentspace sessions`: list, show and remove. Calls the client."""

import click

from agentspace.cli import render
from agentspace.cli.options import Target, client_options, run
from agentspace.client.conversation import Client


@click.group()
def sessions() -> None:
    """List, show and remove sessions."""


@sessions.command("ls")
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(min=1), help="Show at most so many.")
@client_options
def list_sessions(target: Target, limit: int) -> None:
    """List the sessions, newest first."""

    async def work() -> None:
        server = target.server()
        async with Client(server.url, server.token) as client:
            frame = await client.request("session.list", pageSize=min(limit, 1000))
            found = list(frame["sessions"])
            while len(found) < limit and frame.get("nextPageToken"):
                frame = await client.request("session.list", pageSize=1000, pageToken=frame["nextPageToken"])
                found += frame["sessions"]
        if target.as_json:
            print(render.as_json({**frame, "sessions": found[:limit]}))
        else:
            print(render.sessions_table(found[:limit]))

    run(target, work)


@sessions.command("show")
@click.argument("session")
@client_options
def show_session(target: Target, session: str) -> None:
    """Show SESSION (an id or a key) and its messages. With --json: the session, then a message a line."""

    async def work() -> None:
        server = target.server()
        async with Client(server.url, server.token) as client:
            frame = await client.request("session.get", sessionId=session)
            found = frame["session"]
            if target.as_json:
                print(render.as_json(frame))
            else:
                print(render.sessions_table([found]))
                if found.get("systemPrompt"):
                    print(f"\n[system]\n{render.clean(found['systemPrompt'])}")
            turns = {}
            if not target.as_json:
                listed = client.pages("turn.list", "turns", sessionId=session)
                turns = {turn["turnId"]: turn async for turn in listed}
            async for message in client.pages("session.history", "messages", sessionId=session):
                if target.as_json:
                    print(render.as_json(message))
                else:
                    print(f"\n[{message['role']}]\n{render.message_text(message)}")
                    if how := render.ending(message, turns):
                        print(f"[{how}]")

    run(target, work)


@sessions.command("rm")
@click.argument("session", nargs=-1, required=True)
@client_options
def remove_sessions(target: Target, session: tuple[str, ...]) -> None:
    """Remove sessions. What they hold stays in the database and can be restored through the API."""

    async def work() -> None:
        server = target.server()
        async with Client(server.url, server.token) as client:
            for name in session:
                frame = await client.request("session.delete", sessionId=name)
                print(render.as_json(frame) if target.as_json else f"removed {frame['session']['sessionId']}")

    run(target, work)
