"""The bridge's settings: flags before environment before defaults. The only reader of the environment.

Called by __main__.py; the result goes to app.py.
"""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bridge.guard import HOST, is_loopback

DEFAULT_PORT = 3271
MAX_CONNECTIONS = 10_000
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://" + HOST.pattern)
GATEWAY = re.compile(r"unix:.+|.+:[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Config:
    """What the bridge was told.

    ports: to try in order; 0 is any free one. gateway: "unix:PATH" or "host:port". hosts, origins: allowed beside
    loopback, see guard.py. certificate, private_key: PEM files for TLS, or None.
    """

    host: str
    ports: tuple[int, ...]
    gateway: str
    hosts: frozenset[str]
    origins: frozenset[str]
    max_connections: int
    certificate: Path | None
    private_key: Path | None
    exit_with_stdin: bool = False


class Flags(argparse.ArgumentParser):
    """Says in one line what is wrong, and without our name: often it is `agentspace up` that was called."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"error: {message}\n")


def parser() -> Flags:
    """Describe the flags."""
    flags = Flags(prog="python -m bridge", description="The JSON WebSocket in front of a gateway.")
    flags.add_argument("--home", type=Path, help="where the gateway's socket is (AGENTSPACE_HOME, ~/.agentspace)")
    flags.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    flags.add_argument("--port", type=int, help="port; 0 picks a free one (AGENTSPACE_PORT, 3271 or the ten after it)")
    flags.add_argument("--gateway", help="unix:PATH or host:port (gateway.sock in the home folder)")
    flags.add_argument("--max-connections", type=int, default=MAX_CONNECTIONS, help="WebSockets at once (10000)")
    flags.add_argument("--tls-cert", type=Path, help="certificate chain, PEM")
    flags.add_argument("--tls-key", type=Path, help="private key, PEM")
    flags.add_argument("--insecure", action="store_true", help="listen beyond loopback without TLS")
    flags.add_argument("--exit-with-stdin", action="store_true", help="stop when stdin reaches its end")
    return flags


def read_config(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Config:
    """Read flags and environment. Exits with status 2 and a message when they make no sense."""
    flags = parser()
    given = flags.parse_args(arguments)
    home = given.home or Path(environment.get("AGENTSPACE_HOME") or "~/.agentspace")
    if (given.tls_cert is None) != (given.tls_key is None):
        flags.error("--tls-cert and --tls-key go together")
    if not is_loopback(given.host) and given.tls_cert is None and not given.insecure:
        flags.error(f"{given.host} is not loopback: give --tls-cert and --tls-key, or --insecure")
    if given.gateway and not _is_address(given.gateway):
        flags.error(f"--gateway: {given.gateway!r} is neither unix:PATH nor host:port")
    return Config(
        host=given.host,
        ports=_ports(flags, given.port, environment.get("AGENTSPACE_PORT", "")),
        gateway=given.gateway or f"unix:{(home.expanduser() / 'gateway.sock').absolute()}",
        hosts=frozenset(name.lower() for name in _names(environment.get("AGENTSPACE_ALLOWED_HOSTS", ""))),
        origins=_origins(flags, environment.get("AGENTSPACE_ALLOWED_ORIGINS", "")),
        max_connections=given.max_connections,
        certificate=given.tls_cert,
        private_key=given.tls_key,
        exit_with_stdin=given.exit_with_stdin,
    )


def _ports(flags: Flags, flag: int | None, variable: str) -> tuple[int, ...]:
    if flag is None and not variable:
        # Nobody asked for this one: as the original did, go on to the next ten when it is taken.
        return tuple(range(DEFAULT_PORT, DEFAULT_PORT + 11))
    if flag is None and not variable.isdecimal():
        flags.error("AGENTSPACE_PORT is not a port")
    port = int(variable) if flag is None else flag
    if not 0 <= port <= 65535:
        flags.error("a port is a number from 0 to 65535")
    return (port,)


def _origins(flags: Flags, text: str) -> frozenset[str]:
    origins = _names(text)
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            # A browser would never send it, so it would allow nobody.
            flags.error(f"AGENTSPACE_ALLOWED_ORIGINS: {origin!r} is not like https://app.example:8443, in lower case")
    return frozenset(origins)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _is_address(text: str) -> bool:
    """Whether it is `unix:PATH`, or `host:port` with what can be a host and a port."""
    if text.startswith("unix:") or not GATEWAY.fullmatch(text):
        return bool(GATEWAY.fullmatch(text))
    host, _, port = text.rpartition(":")
    try:
        # A label of a name has 63 characters at most: the event loop refuses another one at every dial.
        host.encode("idna")
    except UnicodeError:
        return False
    return int(port) <= 65535
