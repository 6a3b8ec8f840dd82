"""The file that tells clients where the server is."""

import json
import os
import stat
from pathlib import Path

from agentspace.cli import runtime
from agentspace.client.discovery import Runtime, read_runtime


def test_it_is_whole_private_and_readable_by_clients(tmp_path: Path) -> None:
    for port in (1, 2):
        started = "2026-01-02T03:04:05.678Z"
        runtime.write(tmp_path, pid=os.getpid(), host="::1", port=port, grpc_port=9, started_at=started)
    assert read_runtime(tmp_path) == Runtime(os.getpid(), 2, 9, "2026-01-02T03:04:05.678Z", "::1")
    assert stat.S_IMODE((tmp_path / "runtime.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["runtime.json"]


def test_only_its_writer_removes_it(tmp_path: Path) -> None:
    runtime.remove(tmp_path, 5)
    (tmp_path / "runtime.json").write_text(json.dumps({"pid": 6}), encoding="utf-8")
    runtime.remove(tmp_path, 5)
    assert (tmp_path / "runtime.json").exists()
    runtime.remove(tmp_path, 6)
    assert not (tmp_path / "runtime.json").exists()
