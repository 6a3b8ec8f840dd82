"""python -m bridge: runs the bridge until SIGTERM or SIGINT, then stops in order with status 0.

Prints one line of JSON on stdout when it is ready: {"event":"ready","port":N}.
"""

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import Callable

from bridge.app import CertificateError, serve
from bridge.calls import GrpcLink
from bridge.config import Config, read_config
from bridge.telemetry import set_up_logging


async def run(config: Config) -> None:
    """Serve until a signal comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if config.exit_with_stdin:
        # A copy: stdin itself is never closed.
        await loop.connect_read_pipe(lambda: EndOfInput(stop.set), os.fdopen(os.dup(sys.stdin.fileno()), "rb", 0))
    async with serve(config, GrpcLink(config.gateway)) as port:
        sys.stdout.write(json.dumps({"event": "ready", "port": port}) + "\n")
        sys.stdout.flush()
        await stop.wait()


class EndOfInput(asyncio.Protocol):
    """Tells when a pipe has ended: whoever started us holds its other end, and is gone."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def connection_lost(self, error: Exception | None) -> None:
        """The other end is closed."""
        self._ended()


def check_stdin(*, watched: bool) -> None:
    """Exit with status 2 where stdin shall be watched and has no end to wait for."""
    if sys.stdin is None:
        # It was closed, and the event loop would take its place: uvloop aborts when it closes a descriptor that low.
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if watched and not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or sys.stdin.isatty()):
        sys.stderr.write("error: --exit-with-stdin: stdin is no pipe, socket or terminal\n")
        sys.exit(2)


def event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Give uvloop's event loop where it is installed, else asyncio's."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return new_event_loop


def main() -> None:
    """Read the settings and run."""
    config = read_config()
    check_stdin(watched=config.exit_with_stdin)
    set_up_logging()
    try:
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            runner.run(run(config))
    except CertificateError as error:
        sys.exit(f"the bridge cannot start: {error}")
    except OSError as error:
        sys.exit(f"the bridge cannot listen on {config.host}: {error.strerror or error}")


if __name__ == "__main__":
    main()
