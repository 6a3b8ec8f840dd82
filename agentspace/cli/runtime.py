"""Writes the home's runtime.json, which tells clients where the server is. Called by up; read by client.discovery."""

import json
import os
from pathlib import Path


def write(home: Path, *, pid: int, host: str, port: int, grpc_port: int, started_at: str) -> None:
    """Put the file there, whole or not at all, for its owner only."""
    said = {"pid": pid, "host": host, "port": port, "grpcPort": grpc_port, "startedAt": started_at}
    draft = home / f".runtime.{pid}.json"
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(said, file)
        file.write("\n")
    draft.replace(home / "runtime.json")


def remove(home: Path, pid: int) -> None:
    """Take the file away if it is still ours."""
    path = home / "runtime.json"
    try:
        ours = json.loads(path.read_text(encoding="utf-8"))["pid"] == pid
    except (OSError, ValueError, KeyError, TypeError):
        return
    if ours:
        path.unlink(missing_ok=True)
