"""`agentspace paths`: where everything is. Knows the home's layout; talks to nobody."""

from pathlib import Path

import click

from agentspace.cli import render
from agentspace.cli.options import home_option, json_option
from agentspace.client.discovery import home_folder

FILES = {
    "database": "agentspace.db",
    "masterKey": "master.key",
    "token": "token",
    "runtime": "runtime.json",
    "socket": "gateway.sock",
    "history": "history",
}


def master_key_place(home: Path) -> str:
    """Where the servers of a home have their master key from; they do not tell their clients."""
    return f"AGENTSPACE_MASTER_KEY, else the file {home / FILES['masterKey']}"


@click.command()
@home_option
@json_option
def paths(home: Path | None, as_json: bool) -> None:
    """Show where everything is kept."""
    folder = home_folder(home)
    places = {"home": folder, **{name: folder / file for name, file in FILES.items()}}
    if as_json:
        print(render.as_json({name: str(place) for name, place in places.items()}))
        return
    rows = [(name, str(place), "" if place.exists() else "not there") for name, place in places.items()]
    print(render.table(("what", "where", ""), rows))
