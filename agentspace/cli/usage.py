"""`agentspace usage`: tokens and cost. Calls the client."""

import click

from agentspace.cli import render
from agentspace.cli.options import Target, client_options, run
from agentspace.client.conversation import Client


@click.command()
@click.argument("session", required=False)
@client_options
def usage(target: Target, session: str | None) -> None:
    """Show tokens and cost by model, of SESSION or of everything."""

    async def work() -> None:
        server = target.server()
        async with Client(server.url, server.token) as client:
            frame = await client.request("usage.query", **({"sessionId": session} if session else {}))
        print(render.as_json(frame) if target.as_json else render.usage_table(frame))

    run(target, work)
