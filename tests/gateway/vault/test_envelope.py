"""The envelope: what is sealed opens with the same master key for the same provider, and in no other way."""

import base64
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError
from gateway.domain.secret import Secret
from gateway.vault.envelope import EnvelopeVault
from gateway.vault.master_key import MasterKey

CANARY = "sk-ant-canary-0123456789"


def vault(seed: int = 0) -> EnvelopeVault:
    value = base64.b64encode(bytes([seed] * 32)).decode()
    return EnvelopeVault(MasterKey(Secret(value), Path("nowhere")))


def refused(target: EnvelopeVault, provider: str, sealed: bytes) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        target.open(provider, sealed)
    assert caught.value.reason == error_pb2.ERROR_REASON_VAULT_UNAVAILABLE
    assert caught.value.metadata == {"provider": provider}
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    return caught.value


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200))
def test_opens_what_it_sealed(key: str) -> None:
    sealed = vault().seal("anthropic", Secret(key))
    assert vault().open("anthropic", sealed).reveal() == key


def test_holds_nothing_in_clear_and_never_repeats_itself() -> None:
    first, second = (vault().seal("anthropic", Secret(CANARY)) for _ in range(2))
    assert CANARY.encode() not in first
    assert base64.b64encode(CANARY.encode()) not in first
    assert first[1:] != second[1:]
    assert first[1:13] != second[1:13]


def test_other_master_key_does_not_open_it() -> None:
    assert "another master key" in refused(vault(1), "anthropic", vault(0).seal("anthropic", Secret(CANARY))).message


def test_other_provider_does_not_open_it() -> None:
    refused(vault(), "openai", vault().seal("anthropic", Secret(CANARY)))


def test_any_changed_byte_is_noticed() -> None:
    sealed = vault().seal("anthropic", Secret(CANARY))
    for index in range(len(sealed)):
        refused(vault(), "anthropic", sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :])


def test_any_missing_end_is_noticed() -> None:
    sealed = vault().seal("anthropic", Secret(CANARY))
    for length in range(len(sealed)):
        refused(vault(), "anthropic", sealed[:length])


def test_missing_master_key_names_the_provider(tmp_path: Path) -> None:
    sealed = vault().seal("anthropic", Secret(CANARY))
    refused(EnvelopeVault(MasterKey(None, tmp_path / "master.key")), "anthropic", sealed)
    with pytest.raises(GatewayError) as caught:
        EnvelopeVault(MasterKey(Secret("x"), tmp_path)).seal("anthropic", Secret(CANARY))
    assert caught.value.metadata == {"provider": "anthropic"}


def test_first_sealing_makes_the_file_and_a_restart_opens_with_it(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    sealed = EnvelopeVault(MasterKey(None, file)).seal("anthropic", Secret(CANARY))
    assert EnvelopeVault(MasterKey(None, file)).open("anthropic", sealed).reveal() == CANARY
