"""`agentspace keys`: provider keys. Calls the client. A key is typed hidden or piped in, never an argument."""

import sys

import click

from agentspace.cli import render
from agentspace.cli.options import Failure, Target, client_options, run
from agentspace.client.conversation import Client


@click.group()
def keys() -> None:
    """Keep provider keys. They are stored sealed, and every use is audited."""


@keys.command("set")
@click.argument("provider")
@client_options
def set_key(target: Target, provider: str) -> None:
    """Store PROVIDER's key, typed at a hidden prompt or piped in."""
    typed = sys.stdin.isatty()
    key = click.prompt(f"Key for {provider}", hide_input=True, err=True) if typed else sys.stdin.readline()
    key = key.strip()
    if not key:
        raise click.UsageError("there is no key: type it at the prompt or pipe it in")

    async def work() -> None:
        server = target.server()
        async with Client(server.url, server.token) as client:
            frame = await client.request("key.put", provider=provider, key=key)
        print(render.as_json(frame) if target.as_json else f"stored {provider} {render.line(frame['key']['masked'])}")

    run(target, work)


@keys.command("ls")
@client_options
def list_keys(target: Target) -> None:
    """List the stored keys, masked."""

    async def work() -> None:
        server = target.server()
        async with Client(server.url, server.token) as client:
            frame = await client.request("key.list")
        if target.as_json:
            print(render.as_json(frame))
            return
        rows = [
            (
                key["provider"],
                key["masked"],
                render.moment(key["createdAt"]),
                render.moment(key.get("lastUsedAt")) or "never",
            )
            for key in frame["keys"]
        ]
        print(render.table(("provider", "key", "stored (UTC)", "last used (UTC)"), rows))

    run(target, work)


@keys.command("test")
@click.argument("provider")
@client_options
def test_key(target: Target, provider: str) -> None:
    """Ask PROVIDER whether it accepts the stored key. Uses no tokens."""

    async def work() -> None:
        server = target.server()
        async with Client(server.url, server.token) as client:
            frame = await client.request("key.test", provider=provider)
        if target.as_json:
            print(render.as_json(frame))
        elif frame["accepted"]:
            print(f"{provider} accepts the key")
        if not frame["accepted"]:
            if target.as_json:
                raise SystemExit(1)
            raise Failure(f"{provider} does not accept the key: {render.line(frame['detail'], 200)}")

    run(target, work)


@keys.command("rm")
@click.argument("provider")
@client_options
def remove_key(target: Target, provider: str) -> None:
    """Remove PROVIDER's key."""

    async def work() -> None:
        server = target.server()
        async with Client(server.url, server.token) as client:
            frame = await client.request("key.delete", provider=provider)
        if target.as_json:
            print(render.as_json(frame))
        else:
            print(f"removed the key of {provider}" if frame["existed"] else f"there was no key of {provider}")

    run(target, work)
