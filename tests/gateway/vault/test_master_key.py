"""The master key: where it comes from, when it is made, when it is refused."""

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError
from gateway.domain.secret import Secret
from gateway.vault.master_key import MasterKey

KEY = bytes(range(32))
ENCODED = base64.b64encode(KEY).decode()


def refused(source: MasterKey) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        source.to_open()
    assert caught.value.reason == error_pb2.ERROR_REASON_VAULT_UNAVAILABLE
    return caught.value


def test_configured_value_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    source = MasterKey(Secret(ENCODED + "\n"), file)
    assert source.to_open() == source.to_seal() == KEY
    assert not file.exists()


@pytest.mark.parametrize("value", ["", "hunter2-hunter2", base64.b64encode(KEY[:31]).decode(), ENCODED + "!", "é" * 44])
def test_malformed_value_is_refused_and_not_repeated(tmp_path: Path, value: str) -> None:
    error = refused(MasterKey(Secret(value), tmp_path / "master.key"))
    assert not value or value not in error.message


def test_file_is_made_at_the_first_sealing_only(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    source = MasterKey(None, file)
    assert "put it back" in refused(source).message
    assert not file.exists()
    key = source.to_seal()
    assert len(key) == 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["master.key"]
    assert source.to_seal() == MasterKey(None, file).to_open() == key


def test_two_that_make_it_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: MasterKey(None, tmp_path / "master.key").to_seal(), range(16)))
    assert len(keys) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "master.key"
    file.write_text(ENCODED)
    file.chmod(mode)
    assert "0600" in refused(MasterKey(None, file)).message


@pytest.mark.parametrize("content", ["", "short", ENCODED * 20])
def test_malformed_file_is_refused_and_never_replaced(tmp_path: Path, content: str) -> None:
    file = tmp_path / "master.key"
    file.write_text(content)
    file.chmod(0o600)
    refused(MasterKey(None, file))
    with pytest.raises(GatewayError):
        MasterKey(None, file).to_seal()
    assert file.read_text() == content


def test_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "master.key").mkdir()
    refused(MasterKey(None, tmp_path / "master.key"))


def test_home_that_is_gone_is_an_error_of_the_vault(tmp_path: Path) -> None:
    source = MasterKey(None, tmp_path / "gone" / "master.key")
    with pytest.raises(GatewayError) as caught:
        source.to_seal()
    assert caught.value.reason == error_pb2.ERROR_REASON_VAULT_UNAVAILABLE
    assert os.sep not in caught.value.message
