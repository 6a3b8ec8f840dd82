"""Finds the running server and the token for it. Called by the CLI; reads the environment and the home folder.

The order: an explicit URL, AGENTSPACE_URL, the home's runtime.json, and, if no home was named, http://127.0.0.1:3271.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from agentspace.client.errors import unreachable

DEFAULT_URL = "http://127.0.0.1:3271"
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


@dataclass(frozen=True, slots=True)
class Runtime:
    """What runtime.json says of a running server. host: where this machine reaches it; older servers do not say."""

    pid: int
    port: int
    grpc_port: int
    started_at: str
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """The address of its JSON door."""
        return f"http://{address(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class Server:
    """Where to connect. token: the bearer token to send; None: none. source: how the server was found."""

    url: str
    token: str | None = field(repr=False)
    source: str


def environment() -> Mapping[str, str]:
    """The process's environment."""
    return os.environ


def home_folder(explicit: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The home: `explicit`, AGENTSPACE_HOME, ~/.agentspace."""
    environ = environment() if environ is None else environ
    return Path(explicit or environ.get("AGENTSPACE_HOME") or "~/.agentspace").expanduser().absolute()


def address(host: str, port: int) -> str:
    """host:port as URLs and gRPC have it: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def base_url(url: str) -> str:
    """The http(s) address of a server, from what people give for it: ws://, host:port and /gateway at its end are fine.

    Raises ValueError for what can be no such address.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        # Reading these finds what urlsplit lets pass: ports out of range, names that no resolver takes.
        usable = parts.port != 0 and bool((parts.hostname or "").encode("idna"))
    except ValueError:
        usable = False
    if not usable or parts.scheme not in SCHEMES:
        raise ValueError(f"{url!r} is not the address of a server, like {DEFAULT_URL}")
    path = parts.path.rstrip("/").removesuffix("/gateway").rstrip("/")
    return parts._replace(scheme=SCHEMES[parts.scheme], path=path).geturl()


def find_server(
    url: str | None = None, home: str | Path | None = None, environ: Mapping[str, str] | None = None
) -> Server:
    """The server to talk to. Raises UnreachableError when none runs for a home that was named: another home's server,
    which may have taken the default port, is somebody else. Raises ValueError for a URL that is none.

    AGENTSPACE_TOKEN is sent wherever it is set. The token file of the home is sent only to the server that the same
    home's runtime.json names, on this machine, and never to a URL that somebody gave.
    """
    environ = environment() if environ is None else environ
    token = environ.get("AGENTSPACE_TOKEN", "").strip() or None
    if url:
        return Server(base_url(url), token, "--url")
    if given := environ.get("AGENTSPACE_URL"):
        return Server(base_url(given), token, "AGENTSPACE_URL")
    folder = home_folder(home, environ)
    runtime = read_runtime(folder)
    if runtime is None and (home or environ.get("AGENTSPACE_HOME")):
        raise unreachable(f"no server runs for {folder}")
    if runtime is None:
        return Server(DEFAULT_URL, token, "default")
    return Server(runtime.url, token or read_token(folder), "runtime.json")


def read_runtime(home: Path) -> Runtime | None:
    """The running server of a home; None: none runs (a file left behind by a dead one counts as none)."""
    try:
        said = json.loads((home / "runtime.json").read_text(encoding="utf-8"))
        runtime = Runtime(int(said["pid"]), int(said["port"]), int(said["grpcPort"]), str(said["startedAt"]))
        if "host" in said:
            runtime = replace(runtime, host=str(said["host"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return runtime if _alive(runtime.pid) else None


def read_token(home: Path) -> str | None:
    """The operator token of a home; None: there is none, or it is somebody else's."""
    try:
        # What is not ASCII is no reason to go without a token: whoever sends it is told.
        return (home / "token").read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
