"""python -m gateway: runs the gateway until SIGTERM or SIGINT, then drains and exits with status 0.

Prints one line of JSON on stdout when it is ready: {"event":"ready","grpcPort":N}.
"""

import asyncio
import gc
import json
import os
import signal
import stat
import sys
from collections.abc import Callable

from gateway.app import App
from gateway.config import Config, read_config
from gateway.domain.error import GatewayError
from gateway.storage.file import DatabaseRefusedError
from gateway.telemetry import set_up_logging


async def run(config: Config) -> None:
    """Serve until a signal comes, or until stdin ends if that was asked for."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if config.exit_with_stdin:
        await watch_stdin(stop.set)
    app = App(config)
    if not await started(app, stop):
        return
    settle()
    sys.stdout.write(json.dumps({"event": "ready", "grpcPort": app.grpc_port}) + "\n")
    sys.stdout.flush()
    await stop.wait()
    await app.drain()
    await app.close()


async def started(app: App, stop: asyncio.Event) -> bool:
    """Start the app; False when it was told to stop before it had."""
    starting, stopping = asyncio.ensure_future(app.start()), asyncio.ensure_future(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in (starting, stopping):
        task.cancel()
    await asyncio.wait((starting, stopping))
    if starting.cancelled():
        return False
    starting.result()
    return True


async def watch_stdin(ended: Callable[[], None]) -> None:
    """Call `ended` when stdin has ended. A copy of it is watched: stdin itself is never closed."""
    copy = os.fdopen(os.dup(sys.stdin.fileno()), "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: EndOfInput(ended), copy)


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
    """uvloop's event loop where it is installed, else asyncio's."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return new_event_loop


def let_threads_in() -> None:
    """Let a thread that waits for the interpreter have it after half a millisecond instead of five.

    The writer thread asks for it several times a statement; behind a busy event loop a commit took a second (p99).
    """
    sys.setswitchinterval(0.0005)


def settle() -> None:
    """What was made at the start stays: the garbage collector need not look at it again and again.

    Nor need it look at the youngest as often as every 700 objects: no delta and no turn leaves cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


def main() -> None:
    """Read the settings and run."""
    config = read_config()
    check_stdin(watched=config.exit_with_stdin)
    set_up_logging()
    let_threads_in()
    try:
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            runner.run(run(config))
    except (DatabaseRefusedError, GatewayError, OSError, RuntimeError) as error:
        sys.exit(f"the gateway cannot start: {error}")


if __name__ == "__main__":
    main()
