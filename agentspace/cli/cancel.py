"""`agentspace cancel`: end what a session is doing. Calls the client."""

import click

from agentspace.cli import render
from agentspace.cli.options import Target, client_options, run
from agentspace.client.conversation import Client


@click.command()
@click.argument("session")
@client_options
def cancel(target: Target, session: str) -> None:
    """Cancel the running turn of SESSION (an id or a key), and those that wait. The text so far is kept."""

    async def work() -> None:
        server = target.server()
        async with Client(server.url, server.token) as client:
            frame = await client.request("turn.cancel", sessionId=session)
        if target.as_json:
            print(render.as_json(frame))
            return
        for turn in frame["turns"]:
            print(f"{turn['state']} {turn['turnId']}")
        if not frame["turns"]:
            print("no turn was running")

    run(target, work)
