"""`agentspace context`: what the model would be sent next. Calls the client."""

import click

from agentspace.cli import render
from agentspace.cli.options import Target, client_options, run
from agentspace.client.conversation import Client


@click.command()
@click.argument("session")
@click.option("--full", is_flag=True, help="Print the sections' text too.")
@client_options
def context(target: Target, session: str, full: bool) -> None:
    """Show what the model would be sent next in SESSION: bytes, tokens and cost by section."""

    async def work() -> None:
        server = target.server()
        async with Client(server.url, server.token) as client:
            frame = await client.request("context.inspect", sessionId=session)
        if target.as_json:
            print(render.as_json(frame))
            return
        print(render.context_table(frame))
        for section in frame["sections"] if full else ():
            if section["content"]:
                print(f"\n[{render.line(section['name'])}]\n{render.clean(section['content'])}")

    run(target, work)
