"""Runs the command line: in this process against a door of the test's loop, or as a process of its own."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from agentspace.cli.main import cli

ROOT = Path(__file__).parents[2]
PROGRAM = "from agentspace.cli.main import main; main()"


async def call(*arguments: str, said: str | None = None, environ: Mapping[str, str] | None = None) -> Result:
    """Run a command in a thread, with nothing of the environment but what is given."""
    clean: dict[str, str | None] = dict.fromkeys(name for name in os.environ if name.startswith("AGENTSPACE_"))
    runner = CliRunner(env={**clean, "AGENTSPACE_HOME": "/nonexistent", **(environ or {})})
    async with asyncio.timeout(20):
        return await asyncio.to_thread(runner.invoke, cli, arguments, input=said)


async def start(
    *arguments: str, cwd: Path = ROOT, stdin: int = PIPE, stdout: int = PIPE, redirect: str = "", **environ: str
) -> Process:
    """Start the command as a process. redirect: what a shell is to do with its streams."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTSPACE_")}
    environ = {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "default", **environ}
    # A session of its own has no controlling terminal to read a secret from.
    return await asyncio.create_subprocess_exec(
        *(("/bin/sh", "-c", f'exec "$@" {redirect}', "sh") if redirect else ()),
        sys.executable,
        "-c",
        PROGRAM,
        *arguments,
        cwd=cwd,
        env=environ,
        stdin=stdin,
        stdout=stdout,
        stderr=PIPE,
        start_new_session=True,
    )


async def finish(process: Process, said: bytes | None = None) -> tuple[int, str, str]:
    """Wait for the process's end: exit code, stdout, stderr."""
    async with asyncio.timeout(20):
        out, err = await process.communicate(said)
    assert process.returncode is not None
    return process.returncode, (out or b"").decode(), err.decode()


def lines(text: str) -> list[dict[str, Any]]:
    """JSON lines."""
    return [json.loads(line) for line in text.splitlines()]
