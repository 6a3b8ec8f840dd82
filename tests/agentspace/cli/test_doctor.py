"""`agentspace doctor`."""

import json
import os
import subprocess
from pathlib import Path

from tests.agentspace.command import call, lines
from tests.agentspace.json_door import json_door


async def test_a_healthy_installation(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    async with json_door() as door:
        door.ready = (200, {"ready": True, "parts": [{"name": "storage", "ready": True, "detail": ""}]})
        shown = await call("doctor", "--url", door.url, "--home", str(tmp_path))
    assert shown.exit_code == 0, shown.output
    assert "WRONG" not in shown.stdout
    assert "local (no token): chat" in shown.stdout


async def test_what_is_wrong_is_told_with_its_cure(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "master.key").touch()
    (tmp_path / "master.key").chmod(0o644)
    async with json_door() as door:
        door.ready = (503, {"ready": False, "parts": [{"name": "provider", "ready": False, "detail": "set a key"}]})
        shown = await call("doctor", "--url", door.url, "--home", str(tmp_path), "--json")
    [said] = lines(shown.stdout)
    wrong = {finding["name"]: finding["detail"] for finding in said["findings"] if not finding["ok"]}
    assert (shown.exit_code, said["ok"]) == (1, False)
    assert set(wrong) == {"home", "master.key", "ready: provider"}
    assert "chmod 700" in wrong["home"]
    assert wrong["ready: provider"] == "set a key"


async def test_the_master_key_of_a_running_server_has_a_place(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    async with json_door() as door:
        door.ready = (503, {"ready": False, "parts": [{"name": "vault", "ready": False, "detail": "it is missing"}]})
        told = {"pid": os.getpid(), "port": int(door.url.rsplit(":", 1)[1]), "grpcPort": 1, "startedAt": "2026"}
        (tmp_path / "runtime.json").write_text(json.dumps(told), encoding="utf-8")
        shown = await call("doctor", "--home", str(tmp_path))
    assert shown.exit_code == 1
    assert str(tmp_path / "master.key") in shown.stdout


async def test_a_master_key_is_looked_at_and_not_repeated(tmp_path: Path) -> None:
    for value, found in (("hunter2", "is not 32 bytes"), ("A" * 43 + "=", "is 32 bytes")):
        environ = {"AGENTSPACE_MASTER_KEY": value}
        shown = (await call("doctor", "--home", str(tmp_path), environ=environ)).stdout
        [line] = [line for line in shown.splitlines() if line.startswith("AGENTSPACE_MASTER_KEY")]
        assert found in line
        assert ("WRONG" in line) == (found == "is not 32 bytes")
        assert value not in shown


async def test_no_server(tmp_path: Path) -> None:
    shown = await call("doctor", "--url", "http://127.0.0.1:1", "--home", str(tmp_path / "none"))
    assert shown.exit_code == 1
    assert "agentspace up" in shown.stdout


async def test_paths(tmp_path: Path) -> None:
    (tmp_path / "agentspace.db").touch()
    [said] = lines((await call("paths", "--home", str(tmp_path), "--json")).stdout)
    assert said["database"] == str(tmp_path / "agentspace.db")
    shown = (await call("paths", environ={"AGENTSPACE_HOME": str(tmp_path)})).stdout.splitlines()
    assert shown[2].split() == ["database", str(tmp_path / "agentspace.db")]
    assert shown[3].endswith("not there")


async def test_completion() -> None:
    script = (await call("completion", "bash")).stdout
    assert "_AGENTSPACE_COMPLETE" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
