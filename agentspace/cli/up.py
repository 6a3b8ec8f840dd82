"""`agentspace up`: starts gateway and bridge, and stays until it is stopped. Calls child, runtime and http."""

import asyncio
import errno
import os
import shlex
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from agentspace.cli import http, runtime
from agentspace.cli.child import REFUSED, Child, ChildError, RefusedError
from agentspace.cli.options import Failure, home_option
from agentspace.cli.paths import FILES, exposure, master_key_place
from agentspace.client.discovery import address, home_folder, read_runtime

PORT, GRPC_PORT = 3271, 3272
NEXT_PORTS = 10
BRIDGE_STOP_SECONDS = 10.0
# What the gateway may take beyond its drain time to write everything down.
GATEWAY_STOP_SECONDS = 5.0
SOCKET = FILES["socket"]
LONGEST_SOCKET_PATH = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start. host: the address to listen on. Ports are free ones, or 0 to let the system choose. socket: the
    Unix socket between the two."""

    home: Path
    host: str
    port: int
    grpc_port: int
    model: str | None
    drain_seconds: float
    insecure: bool
    socket: Path
    one_process: bool = False

    def standalone(self) -> list[str]:
        """The arguments of both servers in one process."""
        arguments = [*self._both(), "--port", str(self.port), "--grpc-port", str(self.grpc_port)]
        return [*arguments, "--model", self.model] if self.model else arguments

    def gateway(self) -> list[str]:
        """The gateway's arguments."""
        arguments = [*self._both(), "--grpc-port", str(self.grpc_port), "--socket", str(self.socket)]
        return [*arguments, "--model", self.model] if self.model else arguments

    def bridge(self) -> list[str]:
        """The bridge's arguments."""
        return [*self._both(), "--port", str(self.port), "--gateway", f"unix:{self.socket}"]

    def _both(self) -> list[str]:
        insecure = ["--insecure"] if self.insecure else []
        return ["--home", str(self.home), "--host", self.host, *insecure]

    @property
    def near_host(self) -> str:
        """Where this machine reaches the servers: the host, or loopback where that is every address."""
        try:
            listening = ip_address(self.host)
        except ValueError:
            return self.host or "127.0.0.1"
        if not listening.is_unspecified:
            return self.host
        return "::1" if listening.version == 6 else "127.0.0.1"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    envvar="AGENTSPACE_PORT",
    show_default=True,
    show_envvar=True,
    help="HTTP and WebSocket; 0: any free port. The default gives way to the next ten.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    default=GRPC_PORT,
    envvar="AGENTSPACE_GRPC_PORT",
    show_default=True,
    show_envvar=True,
    help="gRPC; like --port.",
)
@click.option("--model", "-m", envvar="AGENTSPACE_MODEL", show_envvar=True, help="The default model.")
@click.option("--one-process", is_flag=True, help="Run both servers in one process: cheaper, and stopped together.")
@click.option("--insecure", is_flag=True, help="Listen beyond loopback without TLS.")
@click.option(
    "--drain-seconds", envvar="AGENTSPACE_DRAIN_SECONDS", type=float, default=20.0, hidden=True, show_envvar=True
)
@home_option
@click.pass_context
def up(
    context: click.Context,
    host: str,
    port: int,
    grpc_port: int,
    model: str | None,
    one_process: bool,
    insecure: bool,
    drain_seconds: float,
    home: Path | None,
) -> None:
    """Start the gateway and the bridge, and stay until Ctrl-C, SIGTERM or the end of the terminal."""
    folder = home_folder(home)
    running = read_runtime(folder)
    # Its number alone says little: after a crash it may be somebody else's by now, in a container our own.
    if running is not None and running.pid != os.getpid() and _answers(running.url):
        raise Failure(f"already running at {running.url} (process {running.pid})")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"the home {folder} cannot be made: {error.strerror}") from error
    if exposed := exposure(folder, "700"):
        click.echo(f"warning: {exposed}", err=True)
    given = {name for name in ("port", "grpc_port") if _given(context, name)}
    chosen = choose_port(host, port, firm="port" in given, option="--port")
    grpc_chosen = choose_port(host, grpc_port, firm="grpc_port" in given, option="--grpc-port", taken=chosen)
    with socket_folder(folder) as place:
        plan = Plan(folder, host, chosen, grpc_chosen, model, drain_seconds, insecure, place / SOCKET, one_process)
        asyncio.run(serve(plan))


@contextmanager
def socket_folder(home: Path) -> Iterator[Path]:
    """Where the socket between the two is: in the home, or, when that makes its path too long, in a folder for once.

    TCP would not do instead: beyond loopback the gateway trusts no bridge there.
    """
    if len(os.fsencode(home / SOCKET)) <= LONGEST_SOCKET_PATH:
        yield home
        return
    try:
        # Not where TMPDIR says: that may be as long.
        folder = TemporaryDirectory(prefix="agentspace-", dir="/tmp", ignore_cleanup_errors=True)
    except OSError as error:
        why = f"and /tmp cannot have it instead: {error.strerror}"
        raise Failure(f"the path of the home {home} is too long for a Unix socket, {why}") from error
    with folder as name:
        yield Path(name)


def _answers(url: str) -> bool:
    try:
        http.get(url, "/health")
    except OSError:
        return False
    return True


def choose_port(host: str, port: int, *, firm: bool, option: str, taken: int = 0) -> int:
    """The port, if it is free; one that is not `firm` gives way to the next ten. Raises Failure if none is free."""
    if port == 0:
        return 0
    last = port if firm else min(port + NEXT_PORTS, 65535)
    for candidate in range(port, last + 1):
        if candidate != taken and _free(host, candidate):
            return candidate
    if firm:
        raise Failure(f"port {port} of {host} is taken; choose another with {option} (0: any free one)")
    raise Failure(f"ports {port} to {last} of {host} are taken; choose another with {option} (0: any free one)")


async def serve(plan: Plan) -> None:
    """Start both, tell about it, and stop both when told or when one dies."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stopper(stop, hurry))
    # With nohup it is to outlive its terminal. A closed one tells up to twice, and that is no reason to hurry.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    children: list[Child] = []
    stopping = asyncio.create_task(stop.wait())
    try:
        starting = asyncio.create_task(start(plan, children))
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            return
        starting.result()
        ends = {asyncio.create_task(child.ended()): child for child in children}
        await asyncio.wait((*ends, stopping), return_when=asyncio.FIRST_COMPLETED)
        dead = [(child, task.result()) for task, child in ends.items() if task.done()]
        if dead and not stop.is_set():
            child, code = dead[0]
            raise Failure(f"the {child.name} stopped unexpectedly (exit code {code})")
    except RefusedError as error:
        raise SystemExit(REFUSED) from error
    except ChildError as error:
        raise Failure(str(error)) from error
    finally:
        await end(children, plan.drain_seconds, hurry)
        # Not before: while running turns end, clients must find the server, and a second `up` this one.
        runtime.remove(plan.home, os.getpid())
        stopping.cancel()


async def start(plan: Plan, children: list[Child]) -> None:
    """Start the gateway, then the bridge, or both in one process, and print where they are."""
    if plan.one_process:
        both = await Child.start("standalone", *plan.standalone())
        children.append(both)
        ready = await both.ready()
        port, grpc_port = int(ready["port"]), int(ready["grpcPort"])
    else:
        gateway = await Child.start("gateway", *plan.gateway())
        children.append(gateway)
        grpc_port = int((await gateway.ready())["grpcPort"])
        bridge = await Child.start("bridge", *plan.bridge())
        children.append(bridge)
        port = int((await bridge.ready())["port"])
    started = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")  # noqa: TID251
    host = plan.near_host
    runtime.write(plan.home, pid=os.getpid(), host=host, port=port, grpc_port=grpc_port, started_at=started)
    await announce(plan, port, grpc_port)


async def announce(plan: Plan, port: int, grpc_port: int) -> None:
    """Print the addresses, whether a chat would work, and lines to paste."""
    door, grpc_door = address(plan.near_host, port), address(plan.near_host, grpc_port)
    print(f"WebSocket  ws://{door}/gateway")
    print(f"HTTP       http://{door}")
    print(f"gRPC       {grpc_door}")
    try:
        code, said = await asyncio.to_thread(http.get, f"http://{door}", "/ready")
    except OSError as error:
        code, said = 0, {"parts": [{"name": "bridge", "ready": False, "detail": str(error)}]}
    if code == 200:
        print("ready")
    else:
        missing = http.missing(said)
        details = "; ".join(f"{part}: {detail}" for part, detail in missing.items())
        print(f"not ready: {details or 'no model can be reached'}")
        if "vault" in missing:
            print(f"  the master key is {master_key_place(plan.home)}")
        if missing.keys() & {"provider", "vault"}:
            print("  or start with another --model; scripted/echo needs no key")
    home = "" if plan.home == home_folder() else f" --home {shlex.quote(str(plan.home))}"
    print("\nTry:")
    print(f'  agentspace chat{home} "hello"')
    print(f"  grpcurl -plaintext {shlex.quote(grpc_door)} agentspace.v1.SessionService/ListSessions", flush=True)


async def end(children: list[Child], drain_seconds: float, hurry: asyncio.Event) -> None:
    """Stop the gateway first, so that the bridge delivers the ends of its turns; a second signal kills both."""

    async def in_order() -> None:
        for child in children:
            patience = BRIDGE_STOP_SECONDS if child.name == "bridge" else drain_seconds + GATEWAY_STOP_SECONDS
            await child.stop(patience)

    ending = asyncio.create_task(in_order())
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait((ending, hurrying), return_when=asyncio.FIRST_COMPLETED)
    if not ending.done():
        for child in children:
            child.kill()
    await ending
    hurrying.cancel()


def _stopper(stop: asyncio.Event, hurry: asyncio.Event) -> Callable[[], None]:
    return lambda: (hurry if stop.is_set() else stop).set()


def _given(context: click.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source is not click.core.ParameterSource.DEFAULT


def _free(host: str, port: int) -> bool:
    """Nobody listens on the port. Raises Failure where nobody could, whatever the port is."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            why = "it is no address of this machine" if error.errno == errno.EADDRNOTAVAIL else error.strerror
            raise Failure(f"cannot listen on port {port} of {host}: {why}") from error
    return True
