"""python -m standalone: gateway and bridge in one process until SIGTERM or SIGINT, then drains and exits with status 0.

Prints one line of JSON on stdout when it is ready: {"event":"ready","port":N,"grpcPort":N}.
"""

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import replace

from bridge.app import serve
from bridge.config import Config as BridgeConfig
from bridge.config import read_config as read_bridge_config
from gateway.__main__ import check_stdin, event_loop, let_threads_in, settle, started, watch_stdin
from gateway.app import App
from gateway.config import Config as GatewayConfig
from gateway.config import Flags
from gateway.config import read_config as read_gateway_config
from gateway.domain.error import GatewayError
from gateway.storage.file import DatabaseRefusedError
from gateway.telemetry import set_up_logging
from standalone.link import DirectLink


async def run(gateway: GatewayConfig, bridge: BridgeConfig) -> None:
    """Serve until a signal comes, or until stdin ends if that was asked for."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if gateway.exit_with_stdin:
        await watch_stdin(stop.set)
    app = App(gateway)
    link = DirectLink(app)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(app.close)
        # Before the gateway, whose start lets waiting turns run: a port that is taken must cost none of them.
        port = await opened.enter_async_context(serve(bridge, link, link_seconds=0))
        if not await started(app, stop):
            return
        link.open()
        await link.opened()
        settle()
        sys.stdout.write(json.dumps({"event": "ready", "port": port, "grpcPort": app.grpc_port}) + "\n")
        sys.stdout.flush()
        await stop.wait()
        await app.drain()
        # The turns' ends go out before the sockets are closed.
        link.flush()


def read_configs(arguments: list[str]) -> tuple[GatewayConfig, BridgeConfig]:
    """The flags of both, from one command line. Exits with status 2 and a message when they make no sense."""
    flags = Flags(prog="python -m standalone", description=__doc__)
    for name in ("--home", "--host", "--port", "--grpc-port", "--model"):
        flags.add_argument(name)
    flags.add_argument("--insecure", action="store_true")
    flags.add_argument("--exit-with-stdin", action="store_true")
    given = vars(flags.parse_args(arguments))
    gateway = read_gateway_config(_chosen(given, "home", "host", "grpc_port", "model", "insecure", "exit_with_stdin"))
    return (
        # No other bridge comes.
        replace(gateway, socket=None),
        read_bridge_config(_chosen(given, "home", "host", "port", "insecure")),
    )


def _chosen(given: dict[str, str | bool | None], *names: str) -> list[str]:
    chosen = []
    for name in names:
        value = given[name]
        if value:
            flag = f"--{name.replace('_', '-')}"
            chosen += [flag] if value is True else [flag, str(value)]
    return chosen


def main() -> None:
    """Read the settings and run."""
    gateway, bridge = read_configs(sys.argv[1:])
    check_stdin(watched=gateway.exit_with_stdin)
    set_up_logging()
    let_threads_in()
    try:
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            runner.run(run(gateway, bridge))
    except (DatabaseRefusedError, GatewayError, OSError, RuntimeError) as error:
        sys.exit(f"the gateway cannot start: {error}")


if __name__ == "__main__":
    main()
