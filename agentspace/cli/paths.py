"""`agentspace paths`: where everything is. Knows the home's layout; talks to nobody."""

import stat
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


def exposure(path: Path, mode: str) -> str:
    """What is wrong when others than the owner can get at a path, and the cure, which gives it the mode; else empty."""
    found = stat.S_IMODE(path.stat().st_mode)
    return f"{path} is open to others ({found:04o}); run: chmod {mode} {path}" if found & 0o077 else ""


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
