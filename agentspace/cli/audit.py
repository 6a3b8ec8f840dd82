"""`agentspace audit`: who did what with keys. Calls the client."""

import click

from agentspace.cli import render
from agentspace.cli.options import Target, client_options, run
from agentspace.client.conversation import Client


@click.command()
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="At most so many.")
@client_options
def audit(target: Target, limit: int) -> None:
    """Show who did what with keys, newest first."""

    async def work() -> None:
        server = target.server()
        async with Client(server.url, server.token) as client:
            frame = await client.request("audit.list", pageSize=limit)
        if target.as_json:
            print(render.as_json(frame))
            return
        rows = [
            (render.moment(event["createdAt"]), event["principal"], event["action"], event["subject"], event["outcome"])
            for event in frame["events"]
        ]
        print(render.table(("when (UTC)", "who", "what", "of", "outcome"), rows))

    run(target, work)
