"""The gateway's settings: flags before environment before defaults. The only reader of the environment. Called by
__main__."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from gateway.domain.error import GatewayError
from gateway.domain.secret import Secret
from gateway.providers.anthropic import ANTHROPIC_URL
from gateway.usecases.pulse import TimeLimits
from gateway.vault.master_key import decode

DEFAULT_MODEL = "claude-sonnet-5-5"
DEFAULT_GRPC_PORT = 3272
DEFAULT_LOCAL_URL = "http://127.0.0.1:18080"
DEFAULT_LIMITS = TimeLimits()
LONGEST_SOCKET_PATH = 100
"""In bytes. The system's own limit is a little more."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the gateway was told. `grpc_port` 0 picks a free one; `socket` None means TCP only. `drain_seconds` is how
    long running turns may go on after a SIGTERM; `idempotency_hours` how long a key is remembered; `max_tokens` caps
    an answer."""

    home: Path
    host: str
    grpc_port: int
    socket: Path | None
    model: str
    anthropic_url: str
    local_url: str
    anthropic_key: Secret | None
    master_key: Secret | None
    insecure: bool
    exit_with_stdin: bool
    drain_seconds: float
    idempotency_hours: float
    max_tokens: int
    limits: TimeLimits


class Flags(argparse.ArgumentParser):
    """Says in one line what is wrong, and without our name: often it is `agentspace up` that was called."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"error: {message}\n")


def parser() -> Flags:
    """Describe the flags."""
    flags = Flags(prog="python -m gateway", description="The gRPC service behind AgentSpace.")
    flags.add_argument("--home", type=Path, help="database, keys and sockets (AGENTSPACE_HOME, ~/.agentspace)")
    flags.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    flags.add_argument("--grpc-port", type=int, help="port; 0 picks a free one (AGENTSPACE_GRPC_PORT, 3272)")
    flags.add_argument("--socket", type=Path, help="a Unix socket to listen on as well (gateway.sock in the home)")
    flags.add_argument("--model", help=f"default model (AGENTSPACE_MODEL, {DEFAULT_MODEL})")
    flags.add_argument("--insecure", action="store_true", help="listen beyond loopback without TLS")
    flags.add_argument("--exit-with-stdin", action="store_true", help="stop when stdin reaches its end")
    return flags


def read_config(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Config:
    """Read flags and environment. Exits with status 2 and a message when they make no sense."""
    flags = parser()
    given = flags.parse_args(arguments)
    home = (given.home or Path(environment.get("AGENTSPACE_HOME") or "~/.agentspace")).expanduser().absolute()
    if given.host not in ("127.0.0.1", "localhost", "::1") and not given.insecure:
        flags.error(f"{given.host} is not loopback: give --insecure, and keep the network between the two your own")
    port = given.grpc_port
    if port is None:
        port = int(_number(flags, environment, "AGENTSPACE_GRPC_PORT", DEFAULT_GRPC_PORT))
    if not 0 <= port <= 65535:
        flags.error(f"--grpc-port {port}: expected 0 to 65535")
    return Config(
        home=home,
        host=given.host,
        grpc_port=port,
        socket=given.socket.absolute() if given.socket else _default_socket(home),
        model=given.model or environment.get("AGENTSPACE_MODEL") or DEFAULT_MODEL,
        anthropic_url=_url(flags, environment, "ANTHROPIC_BASE_URL", ANTHROPIC_URL),
        local_url=_url(flags, environment, "AGENTSPACE_LOCAL_URL", DEFAULT_LOCAL_URL),
        anthropic_key=_secret(environment, "ANTHROPIC_API_KEY"),
        master_key=_master_key(flags, environment),
        insecure=given.insecure,
        exit_with_stdin=given.exit_with_stdin,
        drain_seconds=_number(flags, environment, "AGENTSPACE_DRAIN_SECONDS", 20),
        idempotency_hours=_number(flags, environment, "AGENTSPACE_IDEMPOTENCY_HOURS", 24),
        max_tokens=int(_number(flags, environment, "AGENTSPACE_MAX_TOKENS", 8192, least=1)),
        limits=TimeLimits(
            first_byte=_number(flags, environment, "AGENTSPACE_FIRST_BYTE_SECONDS", DEFAULT_LIMITS.first_byte),
            idle=_number(flags, environment, "AGENTSPACE_IDLE_SECONDS", DEFAULT_LIMITS.idle),
            pinged=_number(flags, environment, "AGENTSPACE_PINGED_SECONDS", DEFAULT_LIMITS.pinged),
            total=_number(flags, environment, "AGENTSPACE_TOTAL_SECONDS", DEFAULT_LIMITS.total),
            unwatched=_number(flags, environment, "AGENTSPACE_UNWATCHED_SECONDS", DEFAULT_LIMITS.unwatched),
        ),
    )


def _default_socket(home: Path) -> Path | None:
    """Where a bridge of the same home looks for us; None where the path would be too long for a socket."""
    path = home / "gateway.sock"
    return path if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH else None


def _secret(environment: Mapping[str, str], name: str) -> Secret | None:
    value = environment.get(name, "").strip()
    return Secret(value) if value else None


def _master_key(flags: Flags, environment: Mapping[str, str]) -> Secret | None:
    secret = _secret(environment, "AGENTSPACE_MASTER_KEY")
    try:
        if secret is not None:
            decode(secret.reveal(), "AGENTSPACE_MASTER_KEY")
    except GatewayError as error:
        flags.error(error.message)
    return secret


def _url(flags: Flags, environment: Mapping[str, str], name: str, default: str) -> str:
    url = environment.get(name) or default
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        # The value is not repeated: it may hold a password.
        flags.error(f"{name}: expected an address like https://host:port/path")
    return url


def _number(flags: Flags, environment: Mapping[str, str], name: str, default: float, least: float = 0) -> float:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not least <= number < 1e9:
        flags.error(f"{name}={text}: expected a number from {least} on")
    return number
