"""`agentspace doctor`."""

import datetime
import ipaddress
import json
import os
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.agentspace.command import call, finish, lines, start
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


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody knows, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = tmp_path / "both.pem"
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(pem))
    return path


async def test_a_certificate_that_is_not_trusted_is_named(tmp_path: Path, certificate: Path) -> None:
    tmp_path.chmod(0o700)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    trusting = {"SSL_CERT_FILE": str(certificate)}
    async with json_door(context) as door:
        told = f"the certificate of {door.url} is not trusted: self-signed certificate; SSL_CERT_FILE"
        shown = await call("doctor", "--url", door.url, "--home", str(tmp_path))
        assert (shown.exit_code, told in shown.stdout) == (1, True)
        shown = await call("chat", "x", "--url", door.url)
        assert (shown.exit_code, shown.stderr) == (3, f"error: {told} can name those that are\n")
        for command in (("doctor", "--home", str(tmp_path)), ("chat", "x")):
            assert (await call(*command, "--url", door.url, environ=trusting)).exit_code == 0


@pytest.mark.parametrize("form", ["{}", "ws://{}/gateway", "http://{}/gateway/"])
async def test_an_address_is_the_same_to_every_command(tmp_path: Path, form: str) -> None:
    tmp_path.chmod(0o700)
    async with json_door() as door:
        url = form.format(door.url.removeprefix("http://"))
        assert (await call("doctor", "--url", url, "--home", str(tmp_path))).exit_code == 0
        assert (await call("chat", "x", environ={"AGENTSPACE_URL": url})).exit_code == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "http://", "ftp://host", "http://a..b"])
@pytest.mark.parametrize("command", [("doctor",), ("chat", "x")])
async def test_what_can_be_no_address_is_a_usage_error(command: tuple[str, ...], url: str) -> None:
    code, out, err = await finish(await start(*command, "--url", url), b"")
    assert (code, out) == (2, "")
    assert err.endswith(f"Error: {url!r} is not the address of a server, like http://127.0.0.1:3271\n")


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
